"""Files that end too early: a download or a copy that broke off must not pass for a shorter video.

Containers say how long they are: in bytes, in the headers of their outermost elements, or else in seconds.
MPEG program streams and Ogg say neither, so where these were cut cannot be seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from vitaclip.errors import DataError

TS_SYNC_OFFSETS = {188: 0, 192: 4, 204: 0}  # by bytes per packet
EBML_HEADER, MATROSKA_SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
MAX_MISSING = 0.05  # of the announced seconds: headers of live recordings are estimates
MAX_MISSING_FRAMES = 3


def require_whole(path: str, stream: Any, num_packets: int, end_s: float) -> None:
    """Raises DataError if a file holds less than it announces.

    Args:
        path: the file.
        stream: its video stream.
        num_packets: packets found in it.
        end_s: where the last packet of any stream ends, in seconds.
    """
    container = stream.container
    num_indexed = len(stream.index_entries)
    if "mp4" in container.format.name and num_packets < num_indexed:
        raise DataError(f"{path}: holds {num_packets} of its {num_indexed} frames: truncated")
    num_bytes, announced = Path(path).stat().st_size, announced_bytes(path, container.format.name)
    if announced is not None:
        if announced > num_bytes:
            raise DataError(f"{path}: holds {num_bytes} of its {announced} bytes: truncated")
        return
    announced_s = _announced_seconds(stream)
    slack_s = max(MAX_MISSING * announced_s, MAX_MISSING_FRAMES / float(stream.average_rate or 25))
    if announced_s - end_s > slack_s:
        raise DataError(f"{path}: holds {end_s:.2f} of its {announced_s:.2f} seconds: truncated")


def _announced_seconds(stream: Any) -> float:
    """Seconds, from time zero, at which the file ends by its header; 0 if it does not say."""
    if stream.container.format.name == "avi":
        return float(stream.frames * stream.time_base)
    return float(stream.container.duration or 0) / 1e6


def announced_bytes(path: str, format_name: str) -> int | None:
    """Where a file ends by the sizes in it, or None where these say nothing. ``format_name`` is FFmpeg's."""
    walks = {"mov": _mp4_end, "matroska": _matroska_end, "avi": _riff_end, "asf": _asf_end, "mpegts": _ts_end}
    walk = walks.get(format_name.split(",")[0])
    if walk is None:
        return None
    with Path(path).open("rb") as file:
        return walk(file, os.fstat(file.fileno()).st_size)


def _end_of_elements(size_at: Callable[[int], int | None], num_bytes: int) -> int | None:
    """Goes from one outermost element to the next. ``size_at`` tells the size of the one at an offset."""
    offset = 0
    while offset < num_bytes:
        size = size_at(offset)
        if size is None:
            return None
        offset += size
    return offset


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _mp4_end(file: BinaryIO, num_bytes: int) -> int | None:
    def size_at(offset: int) -> int | None:
        head = _read(file, offset, 16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        # 0: up to the end; what is no box is something that was appended
        return size if size >= 8 and head[4:8].isalnum() else None

    return _end_of_elements(size_at, num_bytes)


def _riff_end(file: BinaryIO, num_bytes: int) -> int | None:
    def size_at(offset: int) -> int | None:
        head = _read(file, offset, 8)
        size = int.from_bytes(head[4:], "little")
        # a recording that was not finished has no size; chunks have even sizes
        return 8 + size + size % 2 if head[:4] == b"RIFF" and 0 < size < 2**32 - 1 else None

    return _end_of_elements(size_at, num_bytes)


def _asf_end(file: BinaryIO, num_bytes: int) -> int | None:
    def size_at(offset: int) -> int | None:
        size = int.from_bytes(_read(file, offset + 16, 8), "little")
        return size if size >= 24 else None

    return _end_of_elements(size_at, num_bytes)


def _matroska_end(file: BinaryIO, num_bytes: int) -> int | None:
    def size_at(offset: int) -> int | None:
        head = _read(file, offset, 12)
        if head[:4] not in (EBML_HEADER, MATROSKA_SEGMENT) or len(head) < 12 or not head[4]:
            return None
        size_bytes = 9 - head[4].bit_length()
        unknown = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(head[4 : 4 + size_bytes], "big") & unknown
        return None if size == unknown else 4 + size_bytes + size

    return _end_of_elements(size_at, num_bytes)


def _ts_end(file: BinaryIO, num_bytes: int) -> int | None:
    head = _read(file, 0, 3 * max(TS_SYNC_OFFSETS))
    for size, sync in TS_SYNC_OFFSETS.items():
        if set(head[sync::size]) == {ord("G")}:
            return -(-num_bytes // size) * size
    return None
