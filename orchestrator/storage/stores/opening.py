"""The store that an address means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.storage.stores.base import Store
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.stores.s3 import S3Store
from vitaclip.errors import InputError
from vitaclip.s3.bucket import Bucket


def open_store(uri: str) -> Store:
    """A store at a local path, a ``file://`` URI or ``s3://bucket/prefix``. Nothing is contacted
    yet.

    Raises:
        InputError: the URI has another scheme, names no bucket, or holds credentials or options.
    """
    parts = urlsplit(uri)
    # An address is handed to workers, recorded and shown.
    if parts.scheme and (parts.username is not None or parts.query):
        raise InputError(
            f"store {parts.scheme}://...: found a user or options in the address, allowed is "
            "s3://bucket/prefix; credentials come from AWS's own variables (AWS_ACCESS_KEY_ID, "
            "AWS_PROFILE, ...)"
        )
    if parts.scheme == "s3":
        if not parts.netloc:
            raise InputError(
                f"store {uri!r}: found no bucket, allowed is s3://bucket or s3://bucket/prefix"
            )
        return S3Store(Bucket(parts.netloc, parts.path))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme or not uri:
        raise InputError(
            f"store {uri!r}: allowed are a folder, file:///folder and s3://bucket/prefix"
        )
    return LocalStore(Path(uri))
