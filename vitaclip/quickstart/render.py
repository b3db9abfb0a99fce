"""Draws the quickstart's world: one object whose motion is the action; its appearance tells nothing
about it.

Coordinates are fractions of the picture's side, x to the right, y downwards; angles are in radians.
Shape legend: N pictures (or frames of a clip), H height, W width (H = W), 3 colors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Pictures = npt.NDArray[np.uint8]
Rng = np.random.Generator

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "orange": (255, 140, 20),
    "yellow": (250, 230, 40),
    "green": (40, 190, 60),
    "cyan": (50, 215, 225),
    "blue": (45, 80, 230),
    "purple": (160, 60, 205),
    "white": (245, 245, 245),
}

RADIUS = (0.13, 0.18)  # of the object halfway through its clip
MAX_GROWTH = 1.7  # a growing object ends this many times as large as halfway, at most
MARGIN = 0.8  # of the object's radius that stays inside the picture
NUM_DISTRACTORS = 1  # at most; it stands still
DISTRACTOR_RADIUS = (0.02, 0.05)

# A clip's frames carry an afterglow, as on a slow screen: where the object was a moment ago it
# still shows, fainter.
MOMENTS_PER_FRAME = 2
AFTERGLOW_FRAMES = 6  # after which nothing is left
AFTERGLOW_START = 0.75  # opacity of what is only just past
AFTERGLOW_DECAY = 4.0  # frames until a third of that is left


@dataclass(frozen=True)
class Track:
    """Where the object is and how it looks in each of N frames; every field is ``[N]``."""

    x: Array
    y: Array
    radius: Array
    angle: Array
    opacity: Array

    def __getitem__(self, frames: Sequence[int] | slice) -> Track:
        return Track(*(getattr(self, field.name)[frames] for field in fields(self)))


@dataclass(frozen=True)
class Scene:
    """What does not change during a clip."""

    shape: str
    color: tuple[int, int, int]
    background_HW3: Array  # 0..255, distractors included


# Shapes: signed distance (negative inside) in coordinates u, v of the object, which fills about
# [-1, 1]. Circle and ring are marked, or their turning could not be seen.


def _circle(u: Array, v: Array) -> Array:
    distance: Array = np.maximum(np.hypot(u, v) - 1, 0.3 - np.hypot(u - 0.5, v))
    return distance


def _ring(u: Array, v: Array) -> Array:
    gap = np.maximum(-u, np.abs(v) - 0.25)
    return np.maximum(np.abs(np.hypot(u, v) - 0.75) - 0.25, -gap)


def _square(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u), np.abs(v)) - 0.85


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(np.abs(u) * (math.sqrt(3) / 2) + v / 2, -v) - 0.55


def _cross(u: Array, v: Array) -> Array:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    distance: Array = np.maximum(long - 1, short - 0.33)
    return distance


def _star(u: Array, v: Array) -> Array:
    fifth = 2 * math.pi / 5
    angle = np.abs(np.mod(np.arctan2(v, u), fifth) - fifth / 2)  # 0 at a tip, fifth / 2 in a notch
    edge = np.hypot(u, v) * (np.cos(angle) + 2.2 * np.sin(angle)) - 1
    return edge / math.hypot(1, 2.2)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
}


# Motions: each changes a track in place of time s, from -1 at the clip's start to 1 at its end.


def _moving(dx: int, dy: int) -> Callable[[Track, Array, Rng], Track]:
    def move(track: Track, s: Array, rng: Rng) -> Track:
        distance = rng.uniform(0.30, 0.36) * s
        return _changed(track, x=track.x + dx * distance, y=track.y + dy * distance)

    return move


def _scaling(sign: int) -> Callable[[Track, Array, Rng], Track]:
    def scale(track: Track, s: Array, rng: Rng) -> Track:
        return _changed(track, radius=track.radius * rng.uniform(1.5, MAX_GROWTH) ** (sign * s))

    return scale


def _spinning(track: Track, s: Array, rng: Rng) -> Track:
    # below 30 degrees between two of 8 sampled frames: no shape looks as if it stood still or
    # turned back
    return _changed(track, angle=track.angle + rng.choice([-1, 1]) * rng.uniform(1.5, 1.8) * s)


def _blinking(track: Track, s: Array, rng: Rng) -> Track:
    return _changed(track, opacity=track.opacity * (_wave(s, rng.uniform(2.4, 3.2), rng) > 0))


def _shaking(track: Track, s: Array, rng: Rng) -> Track:
    width, height = rng.uniform(0.07, 0.10, 2)
    x = track.x + width * _wave(s, rng.uniform(2.4, 3.2), rng)
    y = track.y + height * _wave(s, rng.uniform(2.4, 3.2), rng)
    return _changed(track, x=x, y=y)


def _bouncing(track: Track, s: Array, rng: Rng) -> Track:
    height = rng.uniform(0.2, 0.3) * np.abs(_wave(s, rng.uniform(0.9, 1.2), rng))
    return _changed(track, y=track.y - height)


def _circling(track: Track, s: Array, rng: Rng) -> Track:
    turn = rng.uniform(0, 2 * math.pi) + rng.choice([-1, 1]) * math.pi * s
    radius = rng.uniform(0.15, 0.2)
    return _changed(track, x=track.x + radius * np.cos(turn), y=track.y + radius * np.sin(turn))


def _standing_still(track: Track, s: Array, rng: Rng) -> Track:
    return track


MOTIONS: dict[str, Callable[[Track, Array, Rng], Track]] = {
    "moving left": _moving(-1, 0),
    "moving right": _moving(1, 0),
    "moving up": _moving(0, -1),
    "moving down": _moving(0, 1),
    "growing": _scaling(1),
    "shrinking": _scaling(-1),
    "spinning": _spinning,
    "blinking": _blinking,
    "shaking": _shaking,
    "bouncing": _bouncing,
    "circling": _circling,
    "standing still": _standing_still,
}


def sample_track(motions: Sequence[str], num_frames: int, rng: Rng) -> Track:
    """A random track that performs all ``motions`` at once; its place in the picture tells nothing
    of them.
    """
    s = np.linspace(-1, 1, num_frames, dtype=np.float32)
    zeros = np.zeros_like(s)
    radius = rng.uniform(*RADIUS)
    # as large as growing objects at some moment of theirs
    if not {"growing", "shrinking"} & set(motions):
        radius *= MAX_GROWTH ** rng.uniform(-1, 1)
    track = Track(zeros, zeros, zeros + radius, zeros + rng.uniform(0, 2 * math.pi), zeros + 1)
    for motion in motions:
        track = MOTIONS[motion](track, s, rng)
    return _changed(
        track, x=_placed(track.x, track.radius, rng), y=_placed(track.y, track.radius, rng)
    )


def sample_scene(
    size: int, rng: Rng, *, shape: str | None = None, color: str | None = None
) -> Scene:
    """A random object and background; ``shape`` and ``color`` (names) fix those.

    Args:
        size: of the picture, in pixels.
        rng: decides what is not fixed.
        shape: its name; None: any.
        color: its name; None: any.
    """
    shape = shape or str(rng.choice(list(SHAPES)))
    color = color or str(rng.choice(list(COLORS)))
    background = sample_background(size, rng)
    for _ in range(rng.integers(NUM_DISTRACTORS + 1)):
        background = _with_distractor(background, rng)
    return Scene(shape, COLORS[color], background)


def draw(scene: Scene, track: Track) -> Pictures:
    """The moments of a track, each by itself: ``[N, H, W, 3]``."""
    return blend(
        scene, coverage(scene.shape, track, len(scene.background_HW3)) * _column(track.opacity)
    )


def draw_clip(scene: Scene, motions: Sequence[str], num_frames: int, rng: Rng) -> Pictures:
    """The frames of a clip in which the object performs ``motions``, with their afterglow: ``[N, H,
    W, 3]``.

    Args:
        scene: the object and its background.
        motions: what the object does, all at once.
        num_frames: of the clip.
        rng: decides where the object is and how fast.
    """
    tail = AFTERGLOW_FRAMES * MOMENTS_PER_FRAME
    track = sample_track(motions, num_frames * MOMENTS_PER_FRAME + tail, rng)
    alpha = coverage(scene.shape, track, len(scene.background_HW3)) * _column(track.opacity)
    ages = np.arange(tail, -1, -1, dtype=np.float32) / MOMENTS_PER_FRAME
    strength = np.where(ages > 0, AFTERGLOW_START * np.exp(-ages / AFTERGLOW_DECAY), 1)
    ends = range(tail, len(alpha), MOMENTS_PER_FRAME)
    return blend(
        scene, np.stack([(alpha[end - tail : end + 1] * _column(strength)).max(0) for end in ends])
    )


def blend(scene: Scene, alpha_NHW: Array) -> Pictures:
    """Paints the object with opacity ``alpha`` over the background."""
    pictures = np.empty((*alpha_NHW.shape, 3), np.uint8)
    for channel, value in enumerate(scene.color):
        background = scene.background_HW3[..., channel]
        pictures[..., channel] = background + alpha_NHW * (value - background)
    return pictures


def coverage(shape: str, track: Track, size: int) -> Array:
    """The share of each pixel that the object covers, ``[N, H, W]`` in [0, 1]."""
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    dx, dy = centers[None, None, :] - _column(track.x), centers[None, :, None] - _column(track.y)
    radius = _column(track.radius)
    cos, sin = _column(np.cos(track.angle)) / radius, _column(np.sin(track.angle)) / radius
    distance = SHAPES[shape](dx * cos + dy * sin, dy * cos - dx * sin)
    return np.clip(0.5 - distance * radius * size, 0, 1)


def sample_background(size: int, rng: Rng) -> Array:
    """A dim texture of waves and noise with a faint tint: ``[H, W, 3]`` in 0..255."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    waves = np.zeros((size, size), np.float32)
    for _ in range(3):
        turn, phase = rng.uniform(0, 2 * math.pi, 2)
        frequency = 2 * math.pi * rng.uniform(2, 14)
        along = float(np.cos(turn)) * x + float(np.sin(turn)) * y
        waves += np.sin(frequency * along + float(phase))
    noise = rng.standard_normal((size, size), np.float32)
    gray = rng.uniform(40, 110) + rng.uniform(2, 9) * waves + rng.uniform(1, 5) * noise
    tint = rng.uniform(0.8, 1.2, 3).astype(np.float32)
    return np.clip(gray[..., None] * tint, 0, 255).astype(np.float32)


def _with_distractor(background_HW3: Array, rng: Rng) -> Array:
    size = len(background_HW3)
    x, y, angle = rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.95), rng.uniform(0, 2 * math.pi)
    place = Track(
        *(np.array([value]) for value in (x, y, rng.uniform(*DISTRACTOR_RADIUS), angle, 1.0))
    )
    alpha = coverage(str(rng.choice(list(SHAPES))), place, size)[0, :, :, None]
    color = rng.uniform(60, 200, 3).astype(np.float32)
    return background_HW3 * (1 - alpha) + color * alpha


def _placed(offset_N: Array, radius_N: Array, rng: Rng) -> Array:
    """Shifts a path at random such that it stays in the picture."""
    low, high = (MARGIN * radius_N - offset_N).max(), (1 - MARGIN * radius_N - offset_N).min()
    placed: Array = offset_N + rng.uniform(min(low, high), max(low, high))
    return placed


def _wave(s: Array, num_periods: float, rng: Rng) -> Array:
    wave: Array = np.sin(math.pi * num_periods * s + rng.uniform(0, 2 * math.pi))
    return wave


def _column(values_N: Array) -> Array:
    return values_N.astype(np.float32)[:, None, None]


def _changed(track: Track, **changes: Array) -> Track:
    values = {field.name: getattr(track, field.name) for field in fields(track)} | changes
    return Track(**{name: value.astype(np.float32) for name, value in values.items()})
