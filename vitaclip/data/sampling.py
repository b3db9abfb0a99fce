"""Which frames of a video make a clip. Pure functions: the same arguments give the same indices.

Dense: ``num_frames`` frames at a fixed stride. Uniform: one frame from each of ``num_frames`` equal
segments (temporal segment networks, arXiv:1608.00859). A window longer than its video holds the
last frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Indices = list[int]
Sampling = Literal["dense", "uniform"]
Sampler = Callable[[int], Indices]  # number of frames in the video -> frame indices


def dense_indices(video_length: int, num_frames: int, stride: int, start: int) -> Indices:
    """Frames ``start, start + stride, ...``; those past the end are the last frame.

    Args:
        video_length: in frames.
        num_frames: of the clip.
        stride: frames from one to the next.
        start: the first frame.
    """
    _check(video_length, num_frames)
    return [min(start + i * stride, video_length - 1) for i in range(num_frames)]


def last_dense_start(video_length: int, num_frames: int, stride: int) -> int:
    """The latest start whose window still lies inside the video; 0 if none does."""
    return max(0, video_length - 1 - (num_frames - 1) * stride)


def uniform_indices(video_length: int, num_frames: int, positions: list[float]) -> Indices:
    """One frame per equal segment; ``positions[i]`` in [0, 1) says where in segment i (0.5: its
    center).
    """
    _check(video_length, num_frames)
    segment = video_length / num_frames
    # min: (i + position) * segment can round up to video_length for a position just below 1
    return [
        min(int((i + position) * segment), video_length - 1) for i, position in enumerate(positions)
    ]


def random_indices(
    video_length: int, num_frames: int, sampling: Sampling, stride: int, rng: np.random.Generator
) -> Indices:
    """A random training clip: a random start (dense), or a random frame of each segment
    (uniform).

    Args:
        video_length: in frames.
        num_frames: of the clip.
        sampling: dense or uniform.
        stride: frames from one to the next, where it is dense.
        rng: decides.
    """
    if sampling == "dense":
        start = int(rng.integers(last_dense_start(video_length, num_frames, stride) + 1))
        return dense_indices(video_length, num_frames, stride, start)
    return uniform_indices(video_length, num_frames, list(rng.random(num_frames)))


def view_indices(
    video_length: int, num_frames: int, sampling: Sampling, stride: int, num_views: int
) -> list[Indices]:
    """The temporal test views, in temporal order.

    Dense: windows whose starts are spread evenly from the first possible to the last; a single view
    is the centered window. Uniform: view v takes the point ``(v + 0.5) / num_views`` of each
    segment.

    Args:
        video_length: in frames.
        num_frames: of a view.
        sampling: dense or uniform.
        stride: frames from one to the next, where it is dense.
        num_views: how many views there are.
    """
    if sampling == "uniform":
        points = [(view + 0.5) / num_views for view in range(num_views)]
        return [uniform_indices(video_length, num_frames, [point] * num_frames) for point in points]
    last = last_dense_start(video_length, num_frames, stride)
    starts = (
        [last // 2]
        if num_views == 1
        else [round(last * v / (num_views - 1)) for v in range(num_views)]
    )
    return [dense_indices(video_length, num_frames, stride, start) for start in starts]


def crop_offsets(
    height: int, width: int, size: int, num_crops: Literal[1, 3]
) -> list[tuple[int, int]]:
    """(top, left) of square test crops: the center, or both ends and the center along the longer
    side.

    Args:
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        size: of a crop, in pixels.
        num_crops: 1 or 3.
    """
    if min(height, width) < size:
        raise ValueError(
            f"frame of {height}x{width}: a crop of {size} needs a frame at least as large"
        )
    free_height, free_width = height - size, width - size
    center = (free_height // 2, free_width // 2)
    if num_crops == 1:
        return [center]
    if free_width >= free_height:
        return [(center[0], 0), center, (center[0], free_width)]
    return [(0, center[1]), center, (free_height, center[1])]


def _check(video_length: int, num_frames: int) -> None:
    if video_length < 1 or num_frames < 1:
        raise ValueError(
            f"video_length {video_length}, num_frames {num_frames}: both must be at least 1"
        )
