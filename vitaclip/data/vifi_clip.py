"""The lists of ViFi-CLIP (Rasheed et al., CVPR 2023), by which the field reports base-to-novel and
few-shot accuracy: github.com/muzairkhattak/ViFi-CLIP, folders ``datasets_splits`` and ``labels``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitaclip.class_names import clean_class_name
from vitaclip.data.formats import Annotations, Row, class_labels
from vitaclip.data.manifest import Clip, read_class_list, read_list

LISTS, LABELS = "datasets_splits", "labels"  # the published folders, in a data set's own
SEEDS = (1, 2, 3)  # draws of 16 clips for each base class
SHOTS = (2, 4, 8, 16)  # clips for each class


# HMDB51's label files have the names of each pair the wrong way round: videos of ``kick_ball`` are
# called kick. X-CLIP's file has it so, too; the data set's own lists agree with the videos' names.
EXCHANGED = (("kick", "kick_ball"), ("sword", "sword_exercise"))

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedList:
    """Where one split is published: its clips in ``LISTS``, its class names in ``LABELS``."""

    clips: str
    classes: str


def _base_to_novel(folder: str, labels: str) -> dict[str, PublishedList]:
    """Half of the classes to train on, and the other half that is new."""
    files = {"base_train": "base_train", "base_val": "base_val", "novel_val": "novel_val"}
    files |= {f"base_train_{seed}": f"fs_base_s{seed}_train" for seed in SEEDS}
    return {
        split: PublishedList(
            f"base2novel_splits/{folder}/{name}.txt",
            f"{labels}_{split.partition('_')[0]}_labels.csv",
        )
        for split, name in files.items()
    }


def _few_shot(folder: str, labels: str) -> dict[str, PublishedList]:
    """A few clips of every class, all of the first official training split."""
    return {
        f"few_shot_{shots}": PublishedList(f"{folder}/train1_few_shot_{shots}.txt", labels)
        for shots in SHOTS
    }


def _tests(folder: str, labels: str) -> dict[str, PublishedList]:
    """UCF101's and HMDB51's three test splits; a training validates on the first."""
    tests = {f"test_{n}": PublishedList(f"{folder}/val{n}.txt", labels) for n in (1, 2, 3)}
    return {"val": tests["test_1"], "test": tests["test_1"], **tests}


PUBLISHED: Mapping[str, Mapping[str, PublishedList]] = {
    "hmdb51": _base_to_novel("hmdb_splits", "hmdb_51")
    | _few_shot("hmdb_splits", "hmdb_51_labels.csv")
    | _tests("hmdb_splits", "hmdb_51_labels.csv"),
    "ucf101": _base_to_novel("ucf_splits", "ucf_101")
    | _few_shot("ucf_splits", "ucf_101_labels.csv")
    | _tests("ucf_splits", "ucf_101_labels.csv"),
    "ssv2": _base_to_novel("ssv2_splits", "ssv2_174")
    | _few_shot("ssv2_splits", "ssv2_labels.csv")
    | {"val": PublishedList("ssv2_splits/validation.txt", "ssv2_labels.csv")},
    "kinetics400": _base_to_novel("k400_splits", "kinetics_400")
    | {
        split: PublishedList(f"k400_splits/{split}.txt", "kinetics_400_labels.csv")
        for split in ("train", "val")
    },
    "kinetics600": {
        f"ZS_split{n}_K600_eval": PublishedList(
            f"k600_splits/ZS_split{n}_K600_eval.txt", f"ZS_split{n}_K600.csv"
        )
        for n in (1, 2, 3)
    },
}


def read_vifi_clip(name: str, split: str, root: Path) -> Annotations | None:
    """A split of the published lists; None: they do not lie in the data set's folder.

    Raises InputError for a file that cannot be read.
    """
    published = PUBLISHED.get(name, {}).get(split)
    if published is None or not (root / LISTS / published.clips).is_file():
        return None
    classes_path = root / LABELS / published.classes
    classes = read_class_list(classes_path)
    clips = read_list(root / LISTS / published.clips, classes, root=root)
    if name == "hmdb51":
        classes = _as_videos_say(classes, clips, classes_path)
    place = str(classes_path)
    return Annotations(
        [Row(place, clip.path, classes[clip.label]) for clip in clips], classes, place
    )


def _as_videos_say(
    classes: tuple[str, ...], clips: Sequence[Clip], classes_path: Path
) -> tuple[str, ...]:
    """The class names, those of a pair exchanged where all of its videos have the other's name."""
    names, labels = list(classes), class_labels(classes)
    for pair in EXCHANGED:
        short, long = (labels.get(clean_class_name(name)) for name in pair)
        if short is None or long is None:
            continue
        says_long = [
            (clip.label, f"_{pair[1]}_" in Path(clip.path).name)
            for clip in clips
            if clip.label in (short, long)
        ]
        if says_long and all(is_long == (label == short) for label, is_long in says_long):
            names[short], names[long] = names[long], names[short]
            _logger.warning("%s: %r and %r are read the other way round", classes_path, *pair)
    return tuple(names)


def vifi_clip_splits(name: str, root: Path) -> tuple[str, ...]:
    """The splits of a data set whose lists lie in its folder."""
    return tuple(
        split
        for split, published in PUBLISHED.get(name, {}).items()
        if (root / LISTS / published.clips).is_file()
    )
