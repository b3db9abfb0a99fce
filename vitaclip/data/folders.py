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
from vitaclip.s3_endpoint import s3_endpoint


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
    """A prefix in a bucket. Objects appear whole, so nothing unfinished is ever visible.

    ``S3_ENDPOINT_URL`` names the server if it is not Amazon's; credentials are found as AWS's tools
    find them.
    """

    def __init__(self, uri: str) -> None:
        from pyarrow import fs  # here: only object stores need it

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise InputError(
                f"{uri!r}: names no bucket; allowed: s3://bucket or s3://bucket/prefix"
            )
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._root = f"{bucket}/{prefix}".rstrip("/")
        self._files = fs.S3FileSystem(endpoint_override=s3_endpoint())

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def read(self, name: str) -> bytes | None:
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        stat = self.stat(name)
        return None if stat is None else stat[0]

    def stat(self, name: str) -> list[int] | None:
        """Size and time of change (ns); None if there is no such object."""
        info = self._files.get_file_info(f"{self._root}/{name}")
        return [info.size, info.mtime_ns] if info.is_file else None

    def write(self, name: str, content: bytes) -> None:
        with self._files.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(content)

    @contextlib.contextmanager
    def partial(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "partial")

    def put(self, partial: Path, name: str) -> None:
        self.write(name, partial.read_bytes())

    def names(self) -> list[str]:
        """Every object below the prefix."""
        from pyarrow import fs

        found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True))
        return [info.path.removeprefix(f"{self._root}/") for info in found if info.is_file]


def read_remote(dataset: str, splits: Sequence[str] | None, uri: str) -> dict[str, Manifest]:
    """The manifests of a data set in an object store; their clips' paths start with ``s3://``."""
    folder = S3Folder(uri)
    with tempfile.TemporaryDirectory() as annotations:
        local = Path(annotations)
        names = folder.names()
        videos = VideoFiles(f"{local}/{name}" for name in names if is_video(name))
        for name in names:
            if not is_video(name):
                (local / name).parent.mkdir(parents=True, exist_ok=True)
                (local / name).write_bytes(folder.read(name) or b"")
        wanted = splits or available_splits(dataset, local)
        manifests = {split: read_dataset(dataset, split, local, lambda: videos) for split in wanted}
    return {
        split: _moved(manifest, annotations, folder.uri) for split, manifest in manifests.items()
    }


def _moved(manifest: Manifest, root: str, new_root: str) -> Manifest:
    clips = (Clip(clip.path.replace(root, new_root, 1), clip.label) for clip in manifest.clips)
    return replace(manifest, clips=tuple(clips))


def file_stat(path: str) -> list[int] | None:
    """Size and time of change (ns) of a file here or in an object store; None if it is not
    there.
    """
    if path.startswith("s3://"):
        parent, _, name = path.rpartition("/")
        return _bucket(parent).stat(name)
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


@functools.lru_cache(maxsize=1024)
def _bucket(uri: str) -> S3Folder:
    return S3Folder(uri)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of one in an object store. Raises DataError if it is not
    there.
    """
    if not path.startswith("s3://"):
        yield Path(path)
        return
    parent, _, name = path.rpartition("/")
    content = _bucket(parent).read(name)
    if content is None:
        raise DataError(f"{path}: cannot be opened: no such object")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        copy.write_bytes(content)
        yield copy
