"""Splits of some classes only, as the zero-shot literature scores them: Kinetics-600's classes that
Kinetics-400 lacks, and halves of HMDB51 and UCF101.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitaclip.data.formats import ALL, CLASS_LISTS
from vitaclip.data.manifest import numbered_lines, read_class_list

ZERO_SHOT_DRAW_SIZE = 160  # of Kinetics-600's unseen classes, as the literature draws them
NUM_HALVES = 10
_OPEN_VCLIP_SEED = 2023
_HALVES = tuple(f"half_{number}" for number in range(1, NUM_HALVES + 1))
# The drawn splits of each data set.
DRAWS: Mapping[str, tuple[str, ...]] = {
    "kinetics600": ("zero_shot", "zero_shot_1", "zero_shot_2", "zero_shot_3"),
    "hmdb51": _HALVES,
    "ucf101": _HALVES,
}


@dataclass(frozen=True)
class Draw:
    """A split that holds the clips of another one's classes, but not of all."""

    of: str
    classes: tuple[str, ...]


def draw(name: str, split: str) -> Draw | None:
    """What a drawn split of a data set holds; None: it is no drawn one."""
    if split not in DRAWS.get(name, ()):
        return None
    if name == "kinetics600":
        return Draw("val", zero_shot_classes(split))
    return Draw(ALL, half_classes(name, int(split.removeprefix("half_"))))


def half_classes(name: str, number: int) -> tuple[str, ...]:
    """The classes of one of ten halves, 1 to 10: those that Open-VCLIP publishes as 0 to 9 (Weng et
    al., ICML 2023, zs_label_db/hmdb_half_test and ucf101_half_test). It shuffles the classes ten
    times.
    """
    classes = read_class_list(CLASS_LISTS / f"{name}.txt")
    rng = random.Random(_OPEN_VCLIP_SEED)
    for _ in range(number):
        order = list(range(len(classes)))
        rng.shuffle(order)
    return tuple(classes[label] for label in sorted(order[: len(classes) // 2]))


def unseen_kinetics600_classes() -> tuple[str, ...]:
    """The 220 classes of Kinetics-600 that Kinetics-400 has under no name."""
    known = set(read_class_list(CLASS_LISTS / "kinetics400.txt")) | set(
        renamed_kinetics_classes().values()
    )
    return tuple(
        name for name in read_class_list(CLASS_LISTS / "kinetics600.txt") if name not in known
    )


def renamed_kinetics_classes() -> dict[str, str]:
    """Kinetics-400's names of classes that Kinetics-600 calls something else, and the new names."""
    lines = [
        line
        for _, line in numbered_lines(CLASS_LISTS / "kinetics600_renamed.txt")
        if line[0] != "#"
    ]
    return dict(line.split(",", 1) for line in lines)


def zero_shot_classes(split: str) -> tuple[str, ...]:
    """The classes of ``zero_shot`` (all 220 unseen ones) or of ``zero_shot_<n>`` (a seeded draw of
    160).
    """
    unseen = unseen_kinetics600_classes()
    _, _, number = split.removeprefix("zero_shot").partition("_")
    if not number:
        return unseen
    drawn = np.random.default_rng(int(number)).permutation(len(unseen))[:ZERO_SHOT_DRAW_SIZE]
    return tuple(unseen[i] for i in sorted(drawn))
