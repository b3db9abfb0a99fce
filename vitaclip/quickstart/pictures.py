"""Captioned pictures for the tiny CLIP: stills of an object, and trails that show a motion in one
picture.

A trail is a long exposure of a clip, its newest moments strongest. A caption names some of what the
picture shows; ``labels`` hold all of it (``UNKNOWN`` where the picture does not say), ``named``
which of it the caption tells.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vitaclip.quickstart import render
from vitaclip.quickstart.world import HELD_OUT_ACTIONS, action_name

UNKNOWN = -100  # torch's cross-entropy leaves it out
NUM_EXPOSURES = 8
OLDEST_WEIGHT = 0.2  # of a trail's first exposure against its last
BACKGROUNDS_PER_POOL = 256

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
SHAPES, COLORS = list(render.SHAPES), list(render.COLORS)
DIRECTIONS = ("moving left", "moving right", "moving up", "moving down")
CHANGES = ("growing", "shrinking", "blinking", "shaking")
OTHERS = ("spinning", "bouncing", "circling")

# What each label can be; index 0 of a motion's label is "not at all".
LABELS: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "row": ROWS,
    "column": COLUMNS,
    "sideways": ("", "moving left", "moving right"),
    "upright": ("", "moving up", "moving down"),
    "size": ("", "growing", "shrinking"),
    **{motion: ("", motion) for motion in ("blinking", "shaking", *OTHERS)},
}
MOTION_LABELS = tuple(LABELS)[4:]

# Turning by one such part of a full turn leaves a shape as it was (circle and ring are marked).
SYMMETRY = {"circle": 1, "ring": 1, "square": 4, "triangle": 3, "cross": 4, "star": 5}

# Of the pairs of shape and color, this diagonal is never named or shown together in training.
HELD_OUT_PAIRS = {
    (shape, COLORS[(i + k) % len(COLORS)]) for i, shape in enumerate(SHAPES) for k in (0, 4)
}

# Pairs of motions that trails show: all but the world's held-out actions.
COMPOSITIONS = tuple(
    pair
    for pair in (
        *((first, change) for first in (*DIRECTIONS, *OTHERS) for change in CHANGES),
        *((sideways, upright) for sideways in DIRECTIONS[:2] for upright in DIRECTIONS[2:]),
        *((size, change) for size in CHANGES[:2] for change in CHANGES[2:]),
        ("blinking", "shaking"),
    )
    if pair not in HELD_OUT_ACTIONS
)
SINGLES = tuple((motion,) for motion in render.MOTIONS)

SYNONYMS = {
    "moving": ("going", "sliding"),
    "growing": ("getting larger", "expanding"),
    "shrinking": ("getting smaller",),
    "spinning": ("turning", "rotating"),
    "blinking": ("flashing",),
    "shaking": ("trembling",),
    "bouncing": ("jumping",),
    "circling": ("orbiting",),
    "standing": ("staying",),
}


@dataclass(frozen=True)
class Picture:
    """One training example; pixels are uint8 ``[H, W, 3]``, ``pose`` is ``[5]``, NaN where there is
    no one pose.
    """

    pixels: render.Pictures
    caption: str
    labels: dict[str, int]
    named: frozenset[str]
    pose: render.Array = field(default_factory=lambda: np.full(5, np.nan, np.float32))


class Backgrounds:
    """A pool of backgrounds, each use of one turned and flipped anew: cheaper than drawing one per
    picture.
    """

    def __init__(self, size: int, rng: render.Rng) -> None:
        self.pool = [
            render.sample_scene(size, rng).background_HW3 for _ in range(BACKGROUNDS_PER_POOL)
        ]

    def sample(self, rng: render.Rng) -> render.Array:
        background = np.rot90(self.pool[rng.integers(len(self.pool))], int(rng.integers(4)))
        return np.flip(background, 1) if rng.integers(2) else background


def sample_still(
    backgrounds: Backgrounds,
    rng: render.Rng,
    *,
    held_out: bool = False,
    share_of_odd_colors: float = 0.0,
) -> Picture:
    """One moment: an object of a shape, a color and a place. ``held_out`` draws from the held-out
    pairs only.

    Args:
        backgrounds: to choose from.
        rng: decides.
        held_out: draw from the held-out pairs only.
        share_of_odd_colors: how often the color is one without a name.
    """
    # without a name: shape must be told by itself
    has_odd_color = rng.random() < share_of_odd_colors
    shape, color = _sample_pair(rng, held_out)
    track = render.sample_track(("standing still",), 1, rng)
    labels = dict.fromkeys(LABELS, UNKNOWN) | _appearance(shape, color, track)
    scene = render.Scene(shape, render.COLORS[color], backgrounds.sample(rng))
    if has_odd_color:
        scene = replace(scene, color=_any_color(rng))
        labels["color"] = UNKNOWN
    pixels = render.draw(scene, track)[0]
    return replace(_captioned_still(pixels, labels, rng), pose=_pose(shape, track))


def sample_trail(motions: tuple[str, ...], backgrounds: Backgrounds, rng: render.Rng) -> Picture:
    """A long exposure of an object performing ``motions``."""
    shape, color = _sample_pair(rng, held_out=False)
    track = render.sample_track(motions, NUM_EXPOSURES, rng)
    scene = render.Scene(shape, render.COLORS[color], backgrounds.sample(rng))
    labels = dict.fromkeys(LABELS, UNKNOWN) | {
        "shape": SHAPES.index(shape),
        "color": COLORS.index(color),
    }
    for name in MOTION_LABELS:
        labels[name] = max(
            LABELS[name].index(motion) if motion in LABELS[name] else 0 for motion in motions
        )
    pixels = render.blend(scene, long_exposure(shape, track, len(scene.background_HW3)))[0]
    return _captioned_trail(pixels, labels, motions, rng)


def sample_motions(rng: render.Rng) -> tuple[str, ...]:
    """Motions of a training trail: one alone, or a composition other than the held-out actions."""
    choices = SINGLES if rng.random() < 0.4 else COMPOSITIONS
    return choices[rng.integers(len(choices))]


def long_exposure(shape: str, track: render.Track, size: int) -> render.Array:
    """Opacity of the object in one picture of all its moments: ``[1, H, W]``."""
    weights = np.geomspace(OLDEST_WEIGHT, 1, len(track.x)) * track.opacity
    weights /= np.geomspace(OLDEST_WEIGHT, 1, len(track.x)).sum()
    seen = np.tensordot(weights.astype(np.float32), render.coverage(shape, track, size), 1)
    return np.sqrt(seen, dtype=np.float32)[None]  # lifts what was there for a moment only


def _sample_pair(rng: render.Rng, held_out: bool) -> tuple[str, str]:
    while True:
        pair = (SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))])
        if (pair in HELD_OUT_PAIRS) == held_out:
            return pair


def _appearance(shape: str, color: str, track: render.Track) -> dict[str, int]:
    column, row = (min(int(place[0] * 3), 2) for place in (track.x, track.y))
    return {
        "shape": SHAPES.index(shape),
        "color": COLORS.index(color),
        "row": row,
        "column": column,
    }


def _pose(shape: str, track: render.Track) -> render.Array:
    """Place, size and orientation of the object in the first frame of a track, each roughly in [-2,
    2].
    """
    turn = SYMMETRY[shape] * track.angle[0]
    place = [4 * (track.x[0] - 0.5), 4 * (track.y[0] - 0.5), 2 * np.log(track.radius[0] / 0.12)]
    return np.array([*place, np.cos(turn), np.sin(turn)], np.float32)


def _any_color(rng: render.Rng) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(20, 256, 3))
    return (red, green, blue) if max(red, green, blue) > 150 else (red + 105, green, blue)


def _captioned_still(pixels: render.Pictures, labels: dict[str, int], rng: render.Rng) -> Picture:
    with_color = labels["color"] != UNKNOWN and rng.random() < 0.85
    with_shape, with_place = rng.random() < 0.85, rng.random() < 0.4
    words = [("a photo of " if rng.random() < 0.2 else "") + "a"]
    words += [COLORS[labels["color"]]] if with_color else []
    words += [SHAPES[labels["shape"]] if with_shape else "object"]
    words += [place_name(labels["row"], labels["column"])] if with_place else []
    named = {"color": with_color, "shape": with_shape, "row": with_place, "column": with_place}
    return Picture(
        pixels,
        " ".join(words),
        labels,
        frozenset(name for name, is_named in named.items() if is_named),
    )


def place_name(row: int, column: int) -> str:
    """'at the top left'; 'in the centre' for the middle one."""
    return "in the centre" if row == column == 1 else f"at the {ROWS[row]} {COLUMNS[column]}"


def _captioned_trail(
    pixels: render.Pictures, labels: dict[str, int], motions: tuple[str, ...], rng: render.Rng
) -> Picture:
    order = list(motions) if rng.random() < 0.7 else list(reversed(motions))
    caption = action_name(tuple(_with_synonym(motion, rng) for motion in order))
    named = set(MOTION_LABELS)
    if rng.random() < 0.5:
        with_color = rng.random() < 0.5
        named |= {"shape", "color"} if with_color else {"shape"}
        color = f"{COLORS[labels['color']]} " if with_color else ""
        start = "a video of a" if rng.random() < 0.2 else "a"
        caption = f"{start} {color}{SHAPES[labels['shape']]} {caption}"
    return Picture(pixels, caption, labels, frozenset(named))


def _with_synonym(motion: str, rng: render.Rng) -> str:
    first, *rest = motion.split()
    if first in SYNONYMS and rng.random() < 0.15:
        first = str(rng.choice(SYNONYMS[first]))
    return " ".join([first, *rest])
