"""Whether two manifests are of the same data: short digests of classes, labels and files, wherever these lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vitaclip.config import Config
from vitaclip.data.manifest import Manifest

_NUM_THREADS = 16  # on a network's folder each question for a size takes a while


class DataIdentity(Config):
    """What tells one split's data from other data. Files are told by their sizes: reading them would take hours."""

    num_classes: int
    num_clips: int
    classes: str
    labels: str
    sizes: str

    @property
    def digest(self) -> str:
        """All of it in 16 characters."""
        return _digest([self.model_dump_json()])

    def differences(self, other: DataIdentity) -> list[str]:
        """In words, what is different in ``other``; empty: it is the same data."""
        if self.classes != other.classes:
            return [f"its classes are others ({self.num_classes} were recorded, found {other.num_classes})"]
        if self.labels != other.labels:
            return [
                f"its clips or labels are others ({self.num_clips} clips were recorded, found {other.num_clips})"
            ]
        return [] if self.sizes == other.sizes else ["its files have other sizes"]


def identify(manifest: Manifest) -> DataIdentity:
    """Looks at the manifest and at the size of each of its files."""
    names = [Path(clip.path).name for clip in manifest.clips]
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        sizes = list(threads.map(_size, (clip.path for clip in manifest.clips), chunksize=64))
    return DataIdentity(
        num_classes=len(manifest.classes),
        num_clips=len(names),
        classes=_digest(manifest.classes),
        labels=_digest(f"{name}\0{clip.label}" for name, clip in zip(names, manifest.clips, strict=True)),
        sizes=_digest(map(str, sizes)),
    )


def _size(path: str) -> int:
    """In bytes; -1: there is no such file."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
