"""A tree of keys that hold values, and folders of files that appear whole or not at all.

Keys are relative, with forward slashes. Every single write is atomic. A folder (a checkpoint) is
published by writing its files first and ``manifest.json`` (sizes, SHA-256) last: without the
manifest it does not exist.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vitaclip.errors import InputError, VitaClipError

MANIFEST = "manifest.json"


class StoreError(VitaClipError):
    """The store refused or lost an operation, after all retries."""


class MissingKeyError(StoreError):
    """Nothing is stored under this key."""


class KeyExistsError(StoreError):
    """A record that is written once exists already, with other content."""


class Store(ABC):
    """A tree of keys. Made by :func:`orchestrator.storage.stores.opening.open_store`."""

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

    @abstractmethod
    def versions(self, prefix: str) -> dict[str, str]:
        """The same keys, each with a mark that is another one once its value is."""

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
        """Publishes the files of ``folder`` under ``prefix``; an earlier folder that is whole is
        withdrawn first.
        """
        if self.exists(f"{checked_key(prefix)}/{MANIFEST}"):
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
            isinstance(entry, dict)
            and {name: type(value) for name, value in entry.items()} == wanted
            for entry in files
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
        """Deletes the key ``prefix`` and all below."""
        self.delete_all(self.list(prefix) + ([prefix] if self.exists(prefix) else []))

    def delete_all(self, keys: Sequence[str]) -> None:
        """Deletes keys, manifests first: no folder looks whole while it goes."""
        manifests = [key for key in keys if PurePosixPath(key).name == MANIFEST]
        self._delete_keys(manifests)
        self._delete_keys([key for key in keys if key not in manifests])

    def check(self) -> None:
        """Lists, writes, rewrites, reads and deletes a probe. Raises InputError with the reason."""
        key = f".probe-{uuid.uuid4().hex}/probe.json"
        try:
            # before the first write: some servers make a bucket that is not there by writing to it
            self.list(str(PurePosixPath(key).parent))
            self._create(key, to_json(1, None))
            kept = not self._create(key, to_json(2, None)) and self.read_json(key) == 1
            self.write_json(key, 3)
            listed = self.list(str(PurePosixPath(key).parent)) == [key] and self.read_json(key) == 3
            self.delete(key)
        except (OSError, StoreError) as error:
            raise InputError(
                f"store {self.uri}: cannot be written and read: {error}; set VITACLIP_STORE to a "
                "folder or s3://bucket/prefix that can"
            ) from None
        if not listed:
            raise InputError(
                f"store {self.uri}: does not show what was just written to it; use a folder or a "
                "server whose reads see every write before them"
            )
        if not kept:
            raise InputError(
                f"store {self.uri}: overwrites what must be written once: the server ignores "
                "'If-None-Match' on PUT; use a server, or a version of it, that knows conditional "
                "writes"
            )


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
