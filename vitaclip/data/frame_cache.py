"""Decoded frames, kept on local disk and shared by all processes of a machine: decode once for all
trials.

One file per entry, mapped into memory when read. A video that is small once scaled is kept whole,
so every later draw from it hits; of a larger one each set of drawn frames is an entry (trials with
the same seed draw the same frames, and test views never change). Sharing is always right: frames
are stored before anything random touches them, under a key of the file's identity (path, size, time
of change), short side, decoder and indices.

Files appear by atomic rename and carry a checksum per frame, so killed writers and crashed machines
leave no wrong frame; what they left half-written is evicted like any entry. The least recently used
entries go first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import mmap
import os
import secrets
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vitaclip.data.decode import Decoder, open_video, read_frames, scaled_size
from vitaclip.data.sampling import Sampler
from vitaclip.data.settings import data_settings
from vitaclip.data.video import Frames
from vitaclip.errors import DataError

WHOLE_VIDEO_BYTES = 4 << 20  # scaled videos up to this size are decoded and kept whole
EVICT_EVERY = 1 / 64  # of the limit: each process checks the cache's size after writing this much
EVICT_TO = 0.9  # of the limit
KEEP_FREE_BYTES = 1 << 30  # of the disk, whatever the limit says
FORMAT = 3  # part of every key: raise it whenever other frames would come out of the same file

_HEADER = struct.Struct("<8sIIII")  # magic, frames in the video, frames stored, height, width
_MAGIC = b"vcframe\n"


@dataclass(frozen=True)
class ReadFrames:
    """Frames [N, H, W, 3] and whether they came out of the cache."""

    frames: Frames
    hit: bool


class FrameCache:
    """Reads clips through a cache folder of at most ``limit_bytes``; a limit of 0 only decodes."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root, self._limit_bytes = root, limit_bytes
        self._unchecked_bytes = (
            limit_bytes  # so that the first write looks at what earlier runs left
        )

    def read(self, path: str, sampler: Sampler, short_side: int, decoder: Decoder) -> ReadFrames:
        """Returns the frames that ``sampler`` draws from the video, scaled down to ``short_side``.

        Raises DataError for a missing or broken video. A cache that cannot be used costs speed,
        never frames.

        Args:
            path: the video.
            sampler: draws frames, given how many there are.
            short_side: in pixels, to which larger frames are scaled down.
            decoder: the library that decodes.
        """
        if not self._limit_bytes:
            return ReadFrames(_decode(path, sampler, short_side, decoder), hit=False)
        key = _video_key(path, short_side, decoder)
        video = self._load(key)
        if video is None:
            return ReadFrames(
                self._decode_and_store(path, sampler, short_side, decoder, key), hit=False
            )
        indices = sampler(video.num_video_frames)
        if video.holds_all:
            frames = video.take(indices)
        else:
            clip = self._load(_clip_key(key, indices))
            frames = None if clip is None else clip.take(range(len(indices)))
        if frames is not None:
            return ReadFrames(frames, hit=True)
        return ReadFrames(
            self._decode_and_store(path, sampler, short_side, decoder, key), hit=False
        )

    def _decode_and_store(
        self, path: str, sampler: Sampler, short_side: int, decoder: Decoder, key: str
    ) -> Frames:
        with open_video(path, decoder) as video:
            length = video.info.num_frames
            height, width = scaled_size(video.info.height, video.info.width, short_side)
            indices = sampler(length)
            if length * height * width * 3 <= WHOLE_VIDEO_BYTES:
                whole = read_frames(video, range(length), short_side)
                self._store(key, length, whole)
                return whole[indices]
            frames = read_frames(video, indices, short_side)
        # remembers the video's length
        self._store(key, length, np.empty((0, height, width, 3), np.uint8))
        self._store(_clip_key(key, indices), length, frames)
        return frames

    def _load(self, key: str) -> _Entry | None:
        path = self._path(key)
        try:
            with path.open("rb") as file:
                entry = _Entry(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            os.utime(path)
        except (OSError, ValueError):  # not there, evicted meanwhile, or not an entry
            return None
        return entry

    def _store(self, key: str, num_video_frames: int, frames: Frames) -> None:
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        header = _HEADER.pack(_MAGIC, num_video_frames, *frames.shape[:3])
        # a full disk, or an eviction that was quicker: not cached
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(
                    b"".join((header, _checksums(frames).tobytes(), frames.tobytes()))
                )
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            self._unchecked_bytes += frames.nbytes
            if self._unchecked_bytes >= self._limit_bytes * EVICT_EVERY:
                self._unchecked_bytes = 0
                evict(self._root, self._limit_bytes)

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / key


def open_frame_cache() -> FrameCache:
    """The machine's shared cache of decoded frames."""
    settings = data_settings()
    return FrameCache(settings.frame_cache.expanduser(), int(settings.frame_cache_gb * 1e9))


class _Entry:
    """One mapped file: header, a checksum per frame, the frames. Raises ValueError for anything
    else.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        if len(mapped) < _HEADER.size:
            raise ValueError("shorter than a header")
        magic, self.num_video_frames, stored, height, width = _HEADER.unpack_from(mapped)
        self._shape = (stored, height, width, 3)
        start = _HEADER.size + 8 * stored
        if magic != _MAGIC or len(mapped) != start + stored * height * width * 3:
            raise ValueError("not a complete entry")
        self._checksums = np.frombuffer(mapped, np.uint64, stored, _HEADER.size)
        self._frames: Frames = np.frombuffer(mapped, np.uint8, offset=start).reshape(self._shape)

    @property
    def holds_all(self) -> bool:
        return bool(self._shape[0] == self.num_video_frames)

    def take(self, indices: Sequence[int]) -> Frames | None:
        """A copy of some frames; None if the disk no longer holds what was written."""
        places = list(indices)
        frames = self._frames[places]
        return frames if np.array_equal(_checksums(frames), self._checksums[places]) else None


def _checksums(frames: Frames) -> npt.NDArray[np.uint64]:
    """One number per frame that finds lost and zeroed blocks (after a machine's crash), at memory
    speed.
    """
    flat = frames.reshape(len(frames), math.prod(frames.shape[1:]))
    aligned = flat.shape[1] // 8 * 8
    words = np.ascontiguousarray(flat[:, :aligned]).view(np.uint64)
    rest = flat[:, aligned:]
    sums: npt.NDArray[np.uint64] = (
        words.sum(axis=1, dtype=np.uint64) + rest.sum(axis=1, dtype=np.uint64) + np.uint64(1)
    )
    return sums


def _decode(path: str, sampler: Sampler, short_side: int, decoder: Decoder) -> Frames:
    with open_video(path, decoder) as video:
        return read_frames(video, sampler(video.info.num_frames), short_side)


def _video_key(path: str, short_side: int, decoder: Decoder) -> str:
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    identity = (FORMAT, path, stat.st_size, stat.st_mtime_ns, short_side, decoder)
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _clip_key(video_key: str, indices: Sequence[int]) -> str:
    return hashlib.sha256(f"{video_key} {list(indices)}".encode()).hexdigest()


def evict(root: Path, limit_bytes: int) -> None:
    """Deletes the least recently used files down to 90% of the limit, or until 1 GB of the disk is
    free.

    One process at a time does it; the others go on without waiting.
    """
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        files = [(stat.st_mtime_ns, stat.st_size, path) for path, stat in _files(root)]
        surplus = sum(size for _, size, _ in files) - limit_bytes
        if surplus > 0:
            surplus += round((1 - EVICT_TO) * limit_bytes)
        surplus = max(surplus, KEEP_FREE_BYTES - shutil.disk_usage(root).free)
        for _, size, path in sorted(files):
            if surplus <= 0:
                return
            path.unlink(missing_ok=True)
            surplus -= size


def _files(root: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for folder in os.scandir(root):
        if not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append((Path(entry.path), entry.stat()))
    return found
