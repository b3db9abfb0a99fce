"""Where records and checkpoints live: a local folder, or S3-compatible storage
(:mod:`orchestrator.storage.s3_store`).

Keys are relative, with forward slashes. Every single write is atomic. A folder (a checkpoint) is
published by writing its files first and ``manifest.json`` (sizes, SHA-256) last: without the
manifest it does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vitaclip.errors import InputError, VitaClipError

MANIFEST = "manifest.json"


class StoreError(VitaClipError):
    """The store refused or lost an operation, after all retries."""


class MissingKeyError(StoreError):
    """Nothing is stored under this key."""


class KeyExistsError(StoreError):
    """A record that is written once exists already, with other content."""


class Store(ABC):
    """A tree of keys. Made by :func:`open_store`."""

    uri: str

    @abstractmethod
    def _put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def _create(self, key: str, data: bytes) -> bool:
        """Writes ``data`` only if nothing is there; False if something was."""

    @abstractmethod
    def _get(self, key: str) -> bytes:
        """Raises MissingKeyError."""

    @abstractmethod
    def _upload_file(self, path: Path, key: str) -> None: ...

    @abstractmethod
    def _download_file(self, key: str, path: Path) -> None:
        """Raises MissingKeyError."""

    @abstractmethod
    def _delete_keys(self, keys: list[str]) -> None: ...

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether a value is stored under exactly this key."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """All keys below the folder ``prefix`` (``""``: all), sorted."""

    def write_json(self, key: str, value: object, *, indent: int | None = 1) -> None:
        """Writes or replaces one JSON value, atomically. NaN and infinity are refused
        (ValueError).
        """
        self._put(checked_key(key), to_json(value, indent))

    def create_json(self, key: str, value: object) -> None:
        """Writes a value that is written once.

        Writing the identical value again is accepted, since a retried request may have succeeded
        unseen.

        Raises:
            KeyExistsError: another value stands there already; it is left as it is.
        """
        data = to_json(value, indent=1)
        if not self._create(checked_key(key), data) and self._get(key) != data:
            raise KeyExistsError(f"{self.uri}: {key} exists already and is never rewritten")

    def read_json(self, key: str) -> Any:
        """Raises MissingKeyError naming the key, or StoreError where the content is no JSON."""
        try:
            return json.loads(self._get(checked_key(key)))
        except ValueError as error:
            raise StoreError(
                f"{self.uri}: {key} is not JSON ({error}); delete it or restore it from a copy"
            ) from None

    def write_text(self, key: str, text: str) -> None:
        """Writes or replaces a text, atomically."""
        self._put(checked_key(key), text.encode())

    def read_text(self, key: str) -> str:
        """Raises MissingKeyError naming the key, or StoreError where the content is no text."""
        try:
            return self._get(checked_key(key)).decode()
        except UnicodeDecodeError as error:
            raise StoreError(
                f"{self.uri}: {key} is no text ({error}); delete it or restore it from a copy"
            ) from None

    def read_texts(self, keys: Sequence[str]) -> Iterator[str]:
        """Many texts, in the order of their keys."""
        return map(self.read_text, keys)

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Publishes the files of ``folder`` under ``prefix``; an earlier folder there is withdrawn
        first.
        """
        self.delete(prefix)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        entries = [_manifest_entry(path, path.relative_to(folder).as_posix()) for path in files]
        for path, entry in zip(files, entries, strict=True):
            self._upload_file(path, f"{checked_key(prefix)}/{entry['path']}")
        self.write_json(f"{prefix}/{MANIFEST}", {"files": entries})

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Copies a published folder into ``folder`` and verifies every file against the manifest.

        Raises:
            MissingKeyError: there is no whole folder under ``prefix``.
            StoreError: a file's size or SHA-256 still differs after a second download.
        """
        for entry in self._manifest(f"{prefix}/{MANIFEST}"):
            target = folder / checked_key(entry["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            self._download_verified(f"{prefix}/{entry['path']}", target, entry)

    def _manifest(self, key: str) -> Sequence[dict[str, Any]]:
        content = self.read_json(key)
        files = content.get("files") if isinstance(content, dict) else None
        wanted = {"path": str, "size_bytes": int, "sha256": str}
        if not isinstance(files, list) or not all(
            isinstance(one, dict) and {name: type(value) for name, value in one.items()} == wanted
            for one in files
        ):
            raise StoreError(
                f"{self.uri}: {key} is no manifest; delete this checkpoint to go back to an "
                "earlier one"
            )
        return files

    def _download_verified(self, key: str, target: Path, entry: dict[str, Any]) -> None:
        for _ in range(2):
            self._download_file(key, target)
            if _manifest_entry(target, entry["path"]) == entry:
                return
        size_bytes = target.stat().st_size
        target.unlink()
        raise StoreError(
            f"{self.uri}: {key} is damaged: found {size_bytes} bytes, the manifest says "
            f"{entry['size_bytes']} bytes with SHA-256 {entry['sha256'][:12]}...; "
            "delete this checkpoint to go back to an earlier one"
        )

    def read_file(self, key: str, path: Path) -> None:
        """Copies one stored file to ``path`` without a manifest's check. Raises MissingKeyError."""
        self._download_file(checked_key(key), path)

    def delete(self, prefix: str) -> None:
        """Deletes the key ``prefix`` and all below, manifests first: no folder looks whole while it
        goes.
        """
        keys = self.list(checked_key(prefix)) + ([prefix] if self.exists(prefix) else [])
        manifests = [key for key in keys if PurePosixPath(key).name == MANIFEST]
        self._delete_keys(manifests)
        self._delete_keys([key for key in keys if key not in manifests])

    def check(self) -> None:
        """Writes, rewrites, reads, lists and deletes a probe. Raises InputError with the reason."""
        key = f".probe-{uuid.uuid4().hex}/probe.json"
        try:
            self._create(key, to_json(1, None))
            kept = not self._create(key, to_json(2, None)) and self.read_json(key) == 1
            self.write_json(key, 3)
            listed = self.list(str(PurePosixPath(key).parent)) == [key] and self.read_json(key) == 3
            self.delete(key)
        except (OSError, StoreError) as error:
            raise InputError(
                f"store {self.uri}: cannot be written and read: {error}; set VITACLIP_STORE to a "
                "folder or "
                "s3://bucket/prefix that can"
            ) from None
        if not listed:
            raise InputError(
                f"store {self.uri}: does not show what was just written to it; use a folder or a "
                "server whose reads "
                "see every write before them"
            )
        if not kept:
            raise InputError(
                f"store {self.uri}: overwrites what must be written once: the server ignores "
                "'If-None-Match' on "
                "PUT; use a server, or a version of it, that knows conditional writes"
            )


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
                "are written once "
                "need a file system with hard links and free space: ext4, XFS, NFS and Lustre have "
                "links, FAT has none"
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
        folder = self._path(checked_key(prefix)) if prefix else self.root
        paths = (  # os.walk passes over folders that are deleted meanwhile
            Path(parent, name) for parent, _, names in os.walk(folder) for name in names
        )
        keys = (
            p.relative_to(self.root).as_posix() for p in paths if not p.name.startswith(".staged-")
        )
        return sorted(keys)

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


def open_store(uri: str) -> Store:
    """A store at a local path, a ``file://`` URI or ``s3://bucket/prefix``. Nothing is contacted
    yet.

    Raises:
        InputError: the URI has another scheme, names no bucket, or holds credentials or options.
    """
    from orchestrator.storage.s3_store import S3Store  # it is a Store

    parts = urlsplit(uri)
    # An address is handed to workers, recorded and shown.
    if parts.scheme and (parts.username is not None or parts.query):
        raise InputError(
            f"store {parts.scheme}://...: found a user or options in the address, allowed is "
            "s3://bucket/prefix; "
            "credentials come from AWS's own variables (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...)"
        )
    if parts.scheme == "s3":
        if not parts.netloc:
            raise InputError(
                f"store {uri!r}: found no bucket, allowed is s3://bucket or s3://bucket/prefix"
            )
        return S3Store(parts.netloc, parts.path)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme or not uri:
        raise InputError(
            f"store {uri!r}: allowed are a folder, file:///folder and s3://bucket/prefix"
        )
    return LocalStore(Path(uri))


def checked_key(key: str) -> str:
    """The key, if it stays inside the store. Raises StoreError."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "/".join(parts) != key:
        raise StoreError(f"key {key!r}: allowed are relative paths with single slashes and no '..'")
    return key


def to_json(value: object, indent: int | None) -> bytes:
    """As it is stored. Raises ValueError for NaN and infinity."""
    return (json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _manifest_entry(path: Path, name: str) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "path": name,
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _staging_name(path: Path) -> Path:
    return path.with_name(f".staged-{uuid.uuid4().hex}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
