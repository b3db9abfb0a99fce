"""A store that counts what it is asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from orchestrator.storage.stores.local import LocalStore


class CountingStore(LocalStore):
    """A folder that counts its requests as an object store's bill would."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.num_lists = 0
        self.fetched = Counter[str]()  # by the last part of the key

    def forget(self) -> None:
        """Counts anew."""
        self.num_lists = 0
        self.fetched.clear()

    def list(self, prefix: str) -> list[str]:
        self.num_lists += 1
        return super().list(prefix)

    def versions(self, prefix: str) -> dict[str, str]:
        self.num_lists += 1
        return super().versions(prefix)

    def _get(self, key: str) -> bytes:
        self.fetched[Path(key).name] += 1
        return super()._get(key)

    def _download_file(self, key: str, path: Path) -> None:
        self.fetched[Path(key).name] += 1
        super()._download_file(key, path)
