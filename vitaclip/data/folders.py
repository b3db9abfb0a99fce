"""Folders here or in an object store, for ``data prepare``: what is written appears whole or not at
all.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vitaclip.data.datasets import available_splits, read_dataset
from vitaclip.data.formats import VideoFiles, is_video
from vitaclip.data.manifest import Clip, Manifest
from vitaclip.errors import DataError, InputError
from vitaclip.s3.bucket import Bucket
from vitaclip.s3.errors import MissingObjectError


class Folder(Protocol):
    """Files by name, with ``/`` between folders. Writing is atomic."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Holds off other writers, where the store can do that. Raises InputError."""

    def read(self, name: str) -> bytes | None: ...

    def size(self, name: str) -> int | None: ...

    def write(self, name: str, content: bytes) -> None: ...

    def partial(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local file to write, which is gone afterwards unless it was put."""

    def put(self, partial: Path, name: str) -> None: ...


def open_folder(uri: str) -> Folder:
    """A local folder, or ``s3://bucket/prefix``: server and credentials from the environment."""
    return S3Folder(uri) if uri.startswith("s3://") else LocalFolder(Path(uri))


class LocalFolder:
    """A folder on a local disk. Unfinished files lie in ``.partial``, which every run empties at
    its start.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._partial = root, root / ".partial"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"{self._root}: another process is writing there; wait until it ends"
                ) from error
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
            yield
            shutil.rmtree(self._partial)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        with self.partial(name) as partial:
            partial.write_bytes(content)
            self.put(partial, name)

    @contextlib.contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        path = self._partial / hashlib.sha256(name.encode()).hexdigest()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def put(self, partial: Path, name: str) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)


class S3Folder:
    """A prefix in a bucket. Objects appear whole, so nothing unfinished is ever visible."""

    def __init__(self, uri: str) -> None:
        self._bucket = _bucket_of(uri)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        self._bucket.check()
        return contextlib.nullcontext()

    def read(self, name: str) -> bytes | None:
        try:
            return self._bucket.get(name)
        except MissingObjectError:
            return None

    def size(self, name: str) -> int | None:
        stat = self._bucket.stat(name)
        return None if stat is None else stat.size_bytes

    def write(self, name: str, content: bytes) -> None:
        self._bucket.put(name, content)

    @contextlib.contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "partial")

    def put(self, partial: Path, name: str) -> None:
        self._bucket.upload(partial, name)


def read_remote(dataset: str, splits: Sequence[str] | None, uri: str) -> dict[str, Manifest]:
    """The manifests of a data set in an object store; their clips' paths start with ``s3://``."""
    bucket = _bucket_of(uri)
    bucket.check()
    with tempfile.TemporaryDirectory() as annotations:
        local = Path(annotations)
        names = _file_names(bucket)
        videos = VideoFiles(f"{local}/{name}" for name in names if is_video(name))
        for name in names:
            if not is_video(name):
                (local / name).parent.mkdir(parents=True, exist_ok=True)
                bucket.download(name, local / name)
        wanted = splits or available_splits(dataset, local)
        manifests = {split: read_dataset(dataset, split, local, lambda: videos) for split in wanted}
    return {
        split: _moved(manifest, annotations, bucket.uri) for split, manifest in manifests.items()
    }


def _file_names(bucket: Bucket) -> list[str]:
    """The objects that may be files of a folder. Raises InputError if one would lie outside."""
    # a name that ends so is a folder's, which some programs make
    names = [name for name in bucket.list() if not name.endswith("/")]
    if outside := next((name for name in names if ".." in name.split("/")), None):
        raise InputError(f"{bucket.uri}: found an object {outside!r}, allowed are names without ..")
    return names


def _moved(manifest: Manifest, root: str, new_root: str) -> Manifest:
    clips = (Clip(clip.path.replace(root, new_root, 1), clip.label) for clip in manifest.clips)
    return replace(manifest, clips=tuple(clips))


def file_stat(path: str) -> list[int] | None:
    """Size and time of change (ns) of a file here or in an object store; None if it is not
    there.
    """
    if path.startswith("s3://"):
        bucket, name = _object(path)
        found = bucket.stat(name)
        return None if found is None else [*found]
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of one in an object store. Raises DataError if it is not
    there.
    """
    if not path.startswith("s3://"):
        yield Path(path)
        return
    bucket, name = _object(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(name).name)
        try:
            bucket.download(name, copy)
        except MissingObjectError:
            raise DataError(f"{path}: cannot be opened: no such object") from None
        yield copy


def _object(path: str) -> tuple[Bucket, str]:
    name, _, key = path.removeprefix("s3://").partition("/")
    return _shared_bucket(name), key


@functools.cache
def _shared_bucket(name: str) -> Bucket:
    """One client for all files of a bucket."""
    return Bucket(name)


def _bucket_of(uri: str) -> Bucket:
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    if not name:
        raise InputError(f"{uri!r}: names no bucket; allowed: s3://bucket or s3://bucket/prefix")
    return Bucket(name, prefix)
