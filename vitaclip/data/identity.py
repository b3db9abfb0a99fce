"""Whether two manifests are of the same data: short digests of classes, labels and files, wherever
these lie.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vitaclip.config import Config
from vitaclip.data.manifest import Manifest

_NUM_THREADS = 16  # on a network's folder each question takes a while
_NUM_READ, _NUM_BYTES = 1000, 4096


class DataIdentity(Config):
    """What tells one split's data from other data.

    Files are told by their sizes and, of up to a thousand of them, by their ends: reading all would
    take hours.
    """

    num_classes: int
    num_clips: int
    classes: str
    labels: str
    files: str

    @property
    def digest(self) -> str:
        """All of it in 16 characters."""
        return _digest([self.model_dump_json()])

    def differences(self, other: DataIdentity) -> list[str]:
        """In words, what is different in ``other``; empty: it is the same data."""
        if self.classes != other.classes:
            return [
                f"its classes are others ({self.num_classes} were recorded, found "
                f"{other.num_classes})"
            ]
        if self.labels != other.labels:
            return [
                f"its clips or labels are others ({self.num_clips} clips were recorded, found "
                f"{other.num_clips})"
            ]
        return [] if self.files == other.files else ["its files have other sizes or content"]


def identify(manifest: Manifest) -> DataIdentity:
    """Looks at the manifest, at the size of each of its files, and into a thousand of them."""
    paths = [clip.path for clip in manifest.clips]
    names = [Path(path).name for path in paths]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        sizes = threads.map(_size, paths)
        ends = threads.map(_ends, paths[:: math.ceil(len(paths) / _NUM_READ) or 1])
        files = _digest([*map(str, sizes), *ends])
    return DataIdentity(
        num_classes=len(manifest.classes),
        num_clips=len(names),
        classes=_digest(manifest.classes),
        labels=_digest(
            f"{name}\0{clip.label}" for name, clip in zip(names, manifest.clips, strict=True)
        ),
        files=files,
    )


def _size(path: str) -> int:
    """In bytes; -1: there is no such file."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _ends(path: str) -> str:
    """A digest of a file's first and last bytes; empty, if it cannot be read or is none, such as a
    pipe.
    """
    if not Path(path).is_file():
        return ""
    try:
        with Path(path).open("rb") as file:
            first = file.read(_NUM_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _NUM_BYTES))
            return hashlib.sha256(first + file.read()).hexdigest()
    except OSError:
        return ""


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
