"""A folder as a store."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.storage.stores.base import MissingKeyError, Store, StoreError, checked_key


class LocalStore(Store):
    """A folder. A file appears under its name only after its content has reached the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(root)

    def _path(self, key: str) -> Path:
        return self.root / key

    def _put(self, key: str, data: bytes) -> None:
        with self._staged(key) as staged:
            staged.write_bytes(data)

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = _staging_name(path)
        try:
            staged.write_bytes(data)
            _sync(staged)
            # unlike a rename, a link fails if the name is taken
            os.link(staged, path)
            _sync(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(
                f"{self.uri}: {key} cannot be created ({error.strerror or error}); records that "
                "are written once need a file system with hard links and free space: ext4, XFS, "
                "NFS and Lustre have links, FAT has none"
            ) from None
        finally:
            staged.unlink(missing_ok=True)
        return True

    def _get(self, key: str) -> bytes:
        with self._naming(key):
            return self._path(key).read_bytes()

    def _upload_file(self, path: Path, key: str) -> None:
        with self._staged(key) as staged:
            shutil.copyfile(path, staged)

    def _download_file(self, key: str, path: Path) -> None:
        with self._naming(key):
            shutil.copyfile(self._path(key), path)

    def _delete_keys(self, keys: list[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)
            self._remove_empty_parents(self._path(key).parent)

    def _remove_empty_parents(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def exists(self, key: str) -> bool:
        return self._path(checked_key(key)).is_file()

    def list(self, prefix: str) -> list[str]:
        return sorted(self._files(prefix))

    def versions(self, prefix: str) -> dict[str, str]:
        found = {}
        for key, path in self._files(prefix).items():
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                stat = path.stat()
                found[key] = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
        return found

    def _files(self, prefix: str) -> dict[str, Path]:
        folder = self._path(checked_key(prefix)) if prefix else self.root
        paths = (  # os.walk passes over folders that are deleted meanwhile
            Path(parent, name) for parent, _, names in os.walk(folder) for name in names
        )
        return {
            path.relative_to(self.root).as_posix(): path
            for path in paths
            if not path.name.startswith(".staged-")
        }

    @contextlib.contextmanager
    def _staged(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = _staging_name(path)
        try:
            yield staged
            _sync(staged)
            staged.replace(path)
            _sync(path.parent)
        finally:
            staged.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise MissingKeyError(f"{self.uri}: there is no {key}") from None
        except OSError as error:
            raise StoreError(
                f"{self.uri}: {key} cannot be read: {error.strerror or error}"
            ) from None


def _staging_name(path: Path) -> Path:
    return path.with_name(f".staged-{uuid.uuid4().hex}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
