"""A prefix in a bucket of an S3 server as a store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.storage.stores.base import (
    KeyExistsError,
    MissingKeyError,
    Store,
    StoreError,
    checked_key,
)
from vitaclip.s3.bucket import Bucket
from vitaclip.s3.errors import MissingObjectError, ObjectExistsError, S3Error

_NUM_READERS = 16  # requests under way at once when many texts are read


class S3Store(Store):
    """Keys are objects' names. Settings and retries are those of :mod:`vitaclip.s3`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.uri = bucket.uri

    def _put(self, key: str, data: bytes) -> None:
        with _store_errors():
            self._bucket.put(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        with _store_errors():
            try:
                self._bucket.create(key, data)
            except ObjectExistsError:
                return False
        return True

    def _get(self, key: str) -> bytes:
        with _store_errors():
            return self._bucket.get(key)

    def read_texts(self, keys: Sequence[str]) -> Iterator[str]:
        """Many texts, in the order of their keys: several requests at once, for each takes its
        time.
        """
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            yield from pool.map(self.read_text, keys)

    def _upload_file(self, path: Path, key: str) -> None:
        with _store_errors():
            self._bucket.upload(path, key)

    def _download_file(self, key: str, path: Path) -> None:
        with _store_errors():
            self._bucket.download(key, path)

    def _delete_keys(self, keys: list[str]) -> None:
        with _store_errors():
            for key in keys:
                self._bucket.delete(key)

    def exists(self, key: str) -> bool:
        with _store_errors():
            return self._bucket.stat(checked_key(key)) is not None

    def list(self, prefix: str) -> list[str]:
        with _store_errors():
            return self._bucket.list(checked_key(prefix) if prefix else "")

    def versions(self, prefix: str) -> dict[str, str]:
        with _store_errors():
            return self._bucket.versions(checked_key(prefix) if prefix else "")

    def check(self) -> None:
        Store.check(S3Store(self._bucket.hasty()))


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except MissingObjectError as error:
        raise MissingKeyError(str(error)) from None
    except ObjectExistsError as error:
        raise KeyExistsError(str(error)) from None
    except S3Error as error:
        raise StoreError(str(error)) from None
