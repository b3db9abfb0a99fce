"""Output folders, here or in an object store: files appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from vitaclip.errors import InputError


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
    """A local folder, or ``s3://bucket/prefix`` (pyarrow's S3 client; credentials from the environment)."""
    return LocalFolder(Path(uri))


class LocalFolder:
    """A folder on a local disk. Unfinished files lie in ``.partial``, which every run empties at its start."""

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
