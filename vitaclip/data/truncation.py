"""Files that end too early: a download or a copy that broke off must not pass for a shorter video.

Containers say how long they are: in bytes, in the headers of their outermost elements, or else in
seconds. MPEG program streams and Ogg say neither, so where these were cut cannot be seen. A
transport stream shows a cut within one of its packets only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from vitaclip.errors import DataError

MAX_MISSING = 0.05  # of the announced seconds: headers of live recordings are estimates
MAX_MISSING_FRAMES = 3
UNFINISHED_AVI = 1 << 30  # frames, in the header of a recording whose end was not written
TS_SYNC_OFFSETS = {188: 0, 192: 4, 204: 0}  # by bytes per packet
EBML_HEADER, MATROSKA_SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
# the first bytes of the identifiers of header, data and two kinds of index
ASF_OBJECTS = tuple(
    bytes.fromhex(start) for start in ("3026b275", "3626b275", "90080033", "d329e2d6")
)
FLV_TAGS = (8, 9, 18)  # sound, video, data


def require_whole(path: str, stream: Any, num_packets: int, end_s: float) -> None:
    """Raises DataError if a file holds less than it announces.

    Args:
        path: the file.
        stream: its video stream.
        num_packets: packets found in it.
        end_s: where the last packet of any stream ends, in seconds.
    """
    kind = stream.container.format.name.split(",")[0]
    num_indexed = len(stream.index_entries)
    if kind == "mov" and num_packets < num_indexed:
        raise DataError(f"{path}: holds {num_packets} of its {num_indexed} frames: truncated")
    num_bytes, announced = Path(path).stat().st_size, announced_bytes(path, kind)
    if announced is not None and announced > num_bytes:
        raise DataError(f"{path}: holds {num_bytes} of its {announced} bytes: truncated")
    # whose tags tell their own sizes, and not how many they are
    if announced is None or kind == "flv":
        _require_seconds(path, stream, end_s)


def _require_seconds(path: str, stream: Any, end_s: float) -> None:
    container = stream.container
    announced_s = float(container.duration or 0) / 1e6
    if container.format.name == "avi":
        announced_s = (
            float(stream.frames * stream.time_base) if stream.frames < UNFINISHED_AVI else 0.0
        )
    slack_s = max(MAX_MISSING * announced_s, MAX_MISSING_FRAMES / float(stream.average_rate or 25))
    if announced_s - end_s > slack_s:
        raise DataError(f"{path}: holds {end_s:.2f} of its {announced_s:.2f} seconds: truncated")


def announced_bytes(path: str, kind: str) -> int | None:
    """Where a file ends by the sizes of its outermost elements, or None if they do not say.

    ``kind`` is the first of FFmpeg's names of the container.
    """
    size_at = _ELEMENT_SIZES.get(kind)
    num_bytes = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        if kind == "mpegts":
            return _whole_ts_packets(file, num_bytes)
        offset = 0 if size_at else None
        while size_at is not None and offset is not None and offset < num_bytes:
            file.seek(offset)
            size = size_at(file.read(24), offset)
            offset = None if size is None else offset + size
    return offset


# Each tells the size of an element by its first 24 bytes and its offset; None: by no size, or it is
# no element.


def _box_size(head: bytes, offset: int) -> int | None:
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        size = int.from_bytes(head[8:16], "big")
    return size if size >= 8 and head[4:8].isalnum() else None


def _riff_size(head: bytes, offset: int) -> int | None:
    size = int.from_bytes(head[4:8], "little")
    # a recording that was not finished has no size; chunks have even sizes
    return 8 + size + size % 2 if head[:4] == b"RIFF" and 0 < size < 2**32 - 1 else None


def _asf_object_size(head: bytes, offset: int) -> int | None:
    size = int.from_bytes(head[16:24], "little")
    return size if head[:4] in ASF_OBJECTS and size >= 24 else None


def _ebml_size(head: bytes, offset: int) -> int | None:
    if head[:4] not in (EBML_HEADER, MATROSKA_SEGMENT) or len(head) < 12 or not head[4]:
        return None
    size_bytes = 9 - head[4].bit_length()
    unknown = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(head[4 : 4 + size_bytes], "big") & unknown
    return None if size == unknown else 4 + size_bytes + size


def _flv_tag_size(head: bytes, offset: int) -> int | None:
    if offset == 0:
        return int.from_bytes(head[5:9], "big") + 4
    return 11 + int.from_bytes(head[1:4], "big") + 4 if head[0] in FLV_TAGS else None


_ELEMENT_SIZES = {
    "mov": _box_size,
    "matroska": _ebml_size,
    "avi": _riff_size,
    "asf": _asf_object_size,
    "flv": _flv_tag_size,
}


def _whole_ts_packets(file: BinaryIO, num_bytes: int) -> int | None:
    head = file.read(3 * max(TS_SYNC_OFFSETS))
    for size, sync in TS_SYNC_OFFSETS.items():
        if set(head[sync::size]) == {ord("G")}:
            return -(-num_bytes // size) * size
    return None
