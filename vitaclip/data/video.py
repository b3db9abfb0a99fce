"""What an open video is to the rest of the project, whichever engine reads it.

Shapes: H height, W width, 3 colors (RGB), uint8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read. Frames are counted, never believed from
    a header.
    """

    num_frames: int
    # pixels, made square, before a display matrix turns or mirrors the frames
    height: int
    width: int
    fps: float
    codec: str
    key_frames: tuple[int, ...]


class FramesRecountedError(Exception):
    """What decoded contradicted the file's times, so the video was counted picture by picture: read
    again.
    """


class Video(Protocol):
    """An open video. ``frames`` yields (index, RGB frame [H, W, 3]) for ascending, unique indices.

    It raises FramesRecountedError at most once in a video's life; what it yielded in that call does
    not count.
    """

    info: VideoInfo

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]: ...
