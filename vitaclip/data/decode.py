"""Frames out of video files, by their place in the order of display.

Two engines, PyAV and decord, give the same frames. Only the frames asked for are converted and
kept, one file is open at a time, and nothing stays open. Shapes: N frames, H height, W width, 3
colors (RGB), uint8.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from vitaclip.data.container import open_container
from vitaclip.data.decord_video import by_decord
from vitaclip.data.pyav_video import PyAVVideo
from vitaclip.data.settings import data_settings
from vitaclip.data.video import Frames, FramesRecountedError, Video, VideoInfo
from vitaclip.errors import DataError

Decoder = Literal["auto", "decord", "pyav"]

CHUNK = 8  # frames that are scaled together
CHUNK_PIXELS = 1 << 24  # of the frames that are scaled together: fewer of large ones
# packets and pictures of larger files are read again instead of being held in memory
MAX_KEPT_BYTES = 64 << 20


@contextlib.contextmanager
def open_video(path: str | Path, decoder: Decoder = "auto") -> Iterator[Video]:
    """Opens a video. Whatever fails while it is open is raised as a DataError naming path and
    reason.
    """
    with open_pyav(path) as video:
        yield by_decord(str(path), video) if decoder == "decord" else video


@contextlib.contextmanager
def open_pyav(path: str | Path) -> Iterator[PyAVVideo]:
    """``open_video`` for those who need pictures as they were decoded."""
    try:
        max_pixels = data_settings().max_frame_pixels
        with open_container(str(path), max_pixels) as container:
            yield PyAVVideo(
                str(path), container, max_kept_bytes=MAX_KEPT_BYTES, max_pixels=max_pixels
            )
    except DataError:
        raise
    except Exception as error:  # both engines raise many unrelated types on damaged files
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(told.split())[:200]
        raise DataError(f"{path}: cannot be decoded: {reason}") from error


def decode_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    short_side: int | None = None,
    decoder: Decoder = "auto",
) -> Frames:
    """Decodes the frames at ``indices`` (any order, repeats allowed) into uint8 [N, H, W, 3].

    ``short_side`` scales larger frames down to that short side, in pixels. Raises DataError.

    Args:
        path: the video.
        indices: the frames' numbers, from 0.
        short_side: in pixels, to which larger frames are scaled down; None leaves them.
        decoder: the library that decodes.
    """
    with open_video(path, decoder) as video:
        return read_frames(video, indices, short_side)


def read_frames(video: Video, indices: Sequence[int], short_side: int | None = None) -> Frames:
    """``decode_frames`` of an open video. Holds ``CHUNK`` unscaled frames at a time."""
    unique, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
    if unique[0] < 0 or unique[-1] >= video.info.num_frames:
        raise IndexError(
            f"frames {unique[0]}..{unique[-1]} of a video of {video.info.num_frames} frames"
        )
    try:
        frames = _read(video, unique.tolist(), short_side)
    except FramesRecountedError:
        frames = _read(video, unique.tolist(), short_side)
    is_as_asked = len(places) == len(unique) and (places == np.arange(len(places))).all()
    return frames if is_as_asked else frames[places]


def _read(video: Video, indices: Sequence[int], short_side: int | None) -> Frames:
    chunk_size = max(1, min(CHUNK, CHUNK_PIXELS // (video.info.height * video.info.width)))
    chunks = _in_chunks(video.frames(indices), chunk_size)
    return np.concatenate([scale(chunk, short_side) for chunk in chunks])


def video_info(path: str | Path, decoder: Decoder = "auto") -> VideoInfo:
    """Reads a video's size, frame count and key frames without decoding it. Raises DataError."""
    with open_video(path, decoder) as video:
        return video.info


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width after scaling down to ``short_side``; smaller frames keep their size.

    The long side is rounded down, as the released code and torchvision do.
    """
    shorter = min(height, width)
    if short_side is None or shorter <= short_side:
        return height, width
    return height * short_side // shorter, width * short_side // shorter


def scale(frames_NHWC: Frames, short_side: int | None) -> Frames:
    """Scales frames down to a short side (antialiased bilinear)."""
    height, width = frames_NHWC.shape[1:3]
    size = scaled_size(height, width, short_side)
    if size == (height, width):
        return frames_NHWC
    images_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2)
    scaled: Frames = tv.resize(images_NCHW, list(size), antialias=True).permute(0, 2, 3, 1).numpy()
    return scaled


def _in_chunks(frames: Iterator[tuple[int, Frames]], size: int) -> Iterator[Frames]:
    """Stacks a few frames at a time: scaling them together is twice as fast as one by one."""
    while chunk := [frame for _, frame in itertools.islice(frames, size)]:
        yield np.stack(chunk)
