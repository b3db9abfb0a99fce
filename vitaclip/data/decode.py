"""Frames out of video files: two engines, PyAV and decord, that give the same frames.

A frame's index is its place in display order. Only the frames asked for are converted and kept, one file is
open at a time, and nothing stays open. Shapes: N frames, H height, W width, 3 colours (RGB), uint8.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import av
import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms.v2 import functional as tv

from vitaclip.errors import DataError

Frames = npt.NDArray[np.uint8]
Decoder = Literal["auto", "decord", "pyav"]

MAX_HELD_FRAMES = 2  # DivX files in AVI announce a frame or two more than they hold: the last frame stands in
SKIPPING_CODECS = ("h264", "hevc", "mpeg4", "vp9")  # decoders that can be told packet by packet what to skip
CHUNK = 8  # frames that are scaled together
MAX_KEPT_BYTES = 64 << 20  # packets of larger files are read a second time instead of being held in memory


@dataclass(frozen=True)
class VideoInfo:
    """What a container says about its video, frames counted rather than believed."""

    num_frames: int
    height: int
    width: int
    fps: float
    codec: str
    key_frames: tuple[int, ...]


class Video(Protocol):
    """An open video. ``frames`` yields (index, RGB frame [H, W, 3]) for ascending, unique indices."""

    info: VideoInfo

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]: ...


@contextlib.contextmanager
def open_video(path: str | Path, decoder: Decoder = "auto") -> Iterator[Video]:
    """Opens a video. Whatever fails while it is open is raised as a DataError naming path and reason."""
    engine = _open_decord if decoder == "decord" else _open_pyav
    try:
        with engine(str(path)) as video:
            yield video
    except DataError:
        raise
    except Exception as error:  # both engines raise many unrelated types on damaged files
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(told.split())[:200]
        raise DataError(f"{path}: cannot be decoded: {reason}") from error


def decode_frames(
    path: str | Path, indices: Sequence[int], *, short_side: int | None = None, decoder: Decoder = "auto"
) -> Frames:
    """Decodes the frames at ``indices`` (any order, repeats allowed) into uint8 [N, H, W, 3].

    ``short_side`` scales larger frames down to that short side, in pixels. Raises DataError.
    """
    with open_video(path, decoder) as video:
        return read_frames(video, indices, short_side)


def read_frames(video: Video, indices: Sequence[int], short_side: int | None = None) -> Frames:
    """``decode_frames`` of an open video. Holds ``CHUNK`` unscaled frames at a time."""
    unique, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
    if unique[0] < 0 or unique[-1] >= video.info.num_frames:
        raise IndexError(f"frames {unique[0]}..{unique[-1]} of a video of {video.info.num_frames} frames")
    chunks = _in_chunks(video.frames(unique.tolist()))
    frames = np.concatenate([scale(chunk, short_side) for chunk in chunks])
    return (
        frames if len(places) == len(unique) and (places == np.arange(len(places))).all() else frames[places]
    )


def video_info(path: str | Path, decoder: Decoder = "auto") -> VideoInfo:
    """Reads a video's size, frame count and key frames without decoding it. Raises DataError."""
    with open_video(path, decoder) as video:
        return video.info


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width after scaling down to ``short_side``; smaller frames keep their size."""
    if short_side is None or min(height, width) <= short_side:
        return height, width
    ratio = short_side / min(height, width)
    return round(height * ratio), round(width * ratio)


def scale(frames_NHWC: Frames, short_side: int | None) -> Frames:
    """Scales frames down to a short side (antialiased bilinear)."""
    height, width = frames_NHWC.shape[1:3]
    size = scaled_size(height, width, short_side)
    if size == (height, width):
        return frames_NHWC
    images_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2)
    scaled: Frames = tv.resize(images_NCHW, list(size), antialias=True).permute(0, 2, 3, 1).numpy()
    return scaled


def _in_chunks(frames: Iterator[tuple[int, Frames]]) -> Iterator[Frames]:
    """Stacks a few frames at a time: scaling them together is twice as fast as one by one."""
    while chunk := [frame for _, frame in itertools.islice(frames, CHUNK)]:
        yield np.stack(chunk)


# PyAV


@contextlib.contextmanager
def _open_pyav(path: str) -> Iterator[Video]:
    with av.open(path, metadata_errors="ignore") as container:
        if not container.streams.video:
            raise DataError(f"{path}: holds no video stream")
        yield _PyAVVideo(path, container)


class _PyAVVideo:
    """Demuxes the whole file first (cheap), then decodes only the groups of pictures that hold wanted frames.

    Within a group, frames that are neither wanted nor referred to are skipped by the decoder.
    """

    def __init__(self, path: str, container: Any) -> None:
        self._path, self._container = path, container
        self._stream = container.streams.video[0]
        self._context = self._stream.codec_context
        self._context.thread_count = 1  # clips are decoded in parallel, not frames
        self._kept: list[Any] | None = []
        self._index = self._read_index()
        if not self._index:
            raise DataError(f"{path}: holds no frames")
        self._times = sorted(p.time for p in self._index if p.is_shown) if self._has_times() else None
        self._check_complete()
        self.info = self._describe()

    def _read_index(self) -> list[_Packet]:
        """Reads all packets, and keeps them unless they are too large together."""
        index, size_bytes = [], 0
        for packet in self._demux():
            index.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, not packet.is_discard))
            size_bytes += packet.size
            if size_bytes > MAX_KEPT_BYTES:
                self._kept = None
            if self._kept is not None:
                self._kept.append(packet)
        return index

    def _demux(self) -> Iterator[Any]:
        return (packet for packet in self._container.demux(self._stream) if packet.size)

    def _has_times(self) -> bool:
        """Whether packets carry their frame's display time. AVI stores none: there, decode order serves."""
        times = [packet.time for packet in self._index]
        if None in times or len(set(times)) < len(times):
            return False
        is_avi = "avi" in self._container.format.name.split(",")
        return not is_avi or all(packet.time == packet.decode_time for packet in self._index)

    def _check_complete(self) -> None:
        """MP4's index, at the file's start or end, tells how many packets there should be."""
        num_indexed = len(self._stream.index_entries)
        if "mp4" in self._container.format.name and len(self._index) < num_indexed:
            raise DataError(f"{self._path}: holds {len(self._index)} of its {num_indexed} frames: truncated")

    def _describe(self) -> VideoInfo:
        place = {time: index for index, time in enumerate(self._times or ())}
        key_frames = [place.get(p.time, i) for i, p in enumerate(self._index) if p.is_key and p.is_shown]
        return VideoInfo(
            num_frames=sum(p.is_shown for p in self._index),
            height=self._context.height,
            width=self._context.width,
            fps=float(self._stream.average_rate or 0),
            codec=self._context.name,
            key_frames=tuple(sorted(key_frames)),
        )

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]:
        found = self._in_order(indices) if self._times is None else self._by_time(indices, self._times)
        for index, (found_index, frame) in itertools.zip_longest(indices, found, fillvalue=(None, None)):
            if index != found_index:
                raise DataError(f"{self._path}: frame {index} of {self.info.num_frames} cannot be decoded")
            yield index, self._to_rgb(frame)

    def _by_time(self, indices: Sequence[int], times: Sequence[int]) -> Iterator[tuple[int, Any]]:
        wanted = {times[index]: index for index in indices}
        unwanted = "NONREF" if self.info.codec in SKIPPING_CODECS else "DEFAULT"
        packets = self._packets()
        position = 0
        for first, last in self._spans(wanted):
            for packet in itertools.islice(packets, first - position, last - position + 1):
                self._context.skip_frame = "DEFAULT" if packet.pts in wanted else unwanted
                yield from _wanted(self._context.decode(packet), wanted)
            yield from _wanted(self._context.decode(None), wanted)
            self._context.flush_buffers()
            position = last + 1

    def _spans(self, wanted: Container[int]) -> list[tuple[int, int]]:
        """The runs of packets to decode, (first, last) in decode order: from key frames to wanted frames."""
        keys = [i for i, packet in enumerate(self._index) if packet.is_key]
        spans: list[tuple[int, int]] = []
        for position, packet in enumerate(self._index):
            if packet.time not in wanted or not packet.is_shown:
                continue
            # a key frame shown later than the wanted frame does not start its group (open groups of pictures)
            first = max((k for k in keys if k <= position and self._index[k].time <= packet.time), default=0)
            while spans and first <= spans[-1][1] + 1:
                first = min(first, spans.pop()[0])
            spans.append((first, position))
        return spans

    def _in_order(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        wanted = set(indices)
        last, place = None, -1
        for place, last in enumerate(self._decode_all()):
            if place in wanted:
                yield place, last
            if place == indices[-1]:
                return
        held = range(place + 1, self.info.num_frames)
        if last is not None and len(held) <= MAX_HELD_FRAMES:
            yield from ((index, last) for index in held if index in wanted)

    def _decode_all(self) -> Iterator[Any]:
        for packet in self._packets():
            yield from self._context.decode(packet)
        yield from self._context.decode(None)

    def _packets(self) -> Iterator[Any]:
        if self._kept is not None:
            return iter(self._kept)
        self._container.seek(0)
        return self._demux()

    def _to_rgb(self, frame: Any) -> Frames:
        rgb = frame.reformat(
            width=self.info.width, height=self.info.height, format="rgb24", threads=1
        ).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class _Packet(NamedTuple):
    time: Any  # int, or None where the container has no times
    decode_time: Any
    is_key: bool
    is_shown: bool  # False: only others refer to it (an edit list cut it away)


def _wanted(frames: Sequence[Any], wanted: Mapping[int, int]) -> Iterator[tuple[int, Any]]:
    return ((wanted[frame.pts], frame) for frame in frames if frame.pts in wanted)


# decord


@contextlib.contextmanager
def _open_decord(path: str) -> Iterator[Video]:
    try:
        import decord  # here: it has no wheel for some platforms, where PyAV serves
    except ImportError as error:
        raise DataError("decoder 'decord' is not installed here; use decoder: auto or pyav") from error
    decord.logging.set_level(decord.logging.QUIET)
    yield _DecordVideo(lambda: decord.VideoReader(path, num_threads=1))


class _DecordVideo:
    def __init__(self, open_reader: Callable[[], Any]) -> None:
        self._open_reader, reader = open_reader, open_reader()
        height, width = reader[0].shape[:2]
        key_frames = tuple(int(index) for index in reader.get_key_indices())
        self.info = VideoInfo(len(reader), height, width, reader.get_avg_fps(), "", key_frames)

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]:
        # After a seek or a skip, decord 0.6.0 returns other frames than asked for in open groups of pictures
        # (x265's default) and in DivX files; a new reader that reads in order never does.
        reader, wanted = self._open_reader(), set(indices)
        for index in range(indices[-1] + 1):
            frame = reader.next()
            if index in wanted:
                yield index, frame.asnumpy()
