"""A store that is only read, and asked for each value once: for those who look again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.storage.stores.base import MissingKeyError, Store, StoreError


class RememberingStore(Store):
    """What lies under one folder of another store, as it was at the last look.

    A look is one listing. What is read after it is fetched once, and again only when a later
    listing shows that it has changed.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self.uri = store.uri
        self._store = store
        self._prefix = prefix
        self._versions: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def look(self) -> dict[str, str]:
        """Every key, with the mark that changes with its value. Raises StoreError."""
        versions = self._store.versions(self._prefix)
        self._contents = {
            key: content
            for key, content in self._contents.items()
            if key in versions and versions[key] == self._versions.get(key)
        }
        self._versions = versions
        return versions

    def _get(self, key: str) -> bytes:
        if key not in self._versions:
            raise MissingKeyError(f"{self.uri}: there is no {key}")
        if key not in self._contents:
            try:
                self._contents[key] = self._store.read_text(key).encode()
            except MissingKeyError:  # deleted since the look
                self.look()
                raise
        return self._contents[key]

    def _download_file(self, key: str, path: Path) -> None:
        path.write_bytes(self._get(key))

    def _put(self, key: str, data: bytes) -> None:
        raise self._refusal(key)

    def _create(self, key: str, data: bytes) -> bool:
        raise self._refusal(key)

    def _upload_file(self, path: Path, key: str) -> None:
        raise self._refusal(key)

    def _delete_keys(self, keys: list[str]) -> None:
        raise self._refusal(", ".join(keys))

    def _refusal(self, key: str) -> StoreError:
        return StoreError(f"{self.uri}: {key} is not written: this process only reads")

    def list(self, prefix: str) -> list[str]:
        start = f"{prefix}/" if prefix else ""
        return sorted(key for key in self._versions if key.startswith(start))

    def versions(self, prefix: str) -> dict[str, str]:
        return {key: self._versions[key] for key in self.list(prefix)}

    def exists(self, key: str) -> bool:
        return key in self._versions

    def read_texts(self, keys: Sequence[str]) -> Iterator[str]:
        new = [key for key in dict.fromkeys(keys) if key not in self._contents]
        for key, text in zip(new, self._store.read_texts(new), strict=True):
            self._contents[key] = text.encode()
        return map(self.read_text, keys)
