"""One bucket's objects: everything that speaks to an object store does so here, with the same
retries and checksums.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vitaclip.errors import InputError
from vitaclip.s3.client import in_parts, open_client
from vitaclip.s3.errors import (
    MissingObjectError,
    S3Error,
    boto3_errors,
    explained,
    may_pass,
)
from vitaclip.service import attempt

_PATIENCE_S = 300.0  # how long an operation is tried again before its failure is raised
# the same where a server that is away is to be reported in seconds
_PROBE_PATIENCE_S = 3.0
_LONGEST_PAUSE_S = 10.0
_CHECKED: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"}
_ADVICE = "check S3_ENDPOINT_URL, the credentials, the bucket's name and the server"
_Result = TypeVar("_Result")


class ObjectStat(NamedTuple):
    """What is known of an object without reading it."""

    size_bytes: int
    mtime_ns: int


class Bucket:
    """A prefix in a bucket. An object appears when its whole body has arrived and its checksum was
    right. Every method raises S3Error.
    """

    def __init__(self, name: str, prefix: str = "", *, patience_s: float = _PATIENCE_S) -> None:
        self.name = name
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{name}/{self.prefix}".rstrip("/")
        self._patience_s = patience_s

    @cached_property
    def client(self) -> Any:
        """boto3's."""
        return open_client()

    def hasty(self) -> Bucket:
        """The same, with errors reported in seconds."""
        return Bucket(self.name, self.prefix, patience_s=min(self._patience_s, _PROBE_PATIENCE_S))

    def check(self) -> None:
        """Asks one question. Raises InputError if there is no answer within seconds."""
        try:
            attempt(self.uri, self.hasty()._list_one, _ADVICE)
        except S3Error as error:
            raise InputError(f"{error}; {_ADVICE}") from None

    def put(self, key: str, data: bytes) -> None:
        """Writes or replaces an object."""
        place = self._object(key)
        self._call(key, lambda s3: s3.put_object(**place, **_CHECKED, Body=data))

    def create(self, key: str, data: bytes) -> None:
        """Writes an object that is not there yet.

        Raises:
            ObjectExistsError: it is. A retried request may have written it itself, unseen.
        """
        body = {**_CHECKED, "Body": data, "IfNoneMatch": "*"}
        self._call(key, lambda s3: s3.put_object(**self._object(key), **body))

    def get(self, key: str) -> bytes:
        """Raises MissingObjectError."""
        place = self._object(key)
        return self._call(key, lambda s3: bytes(s3.get_object(**place)["Body"].read()))

    def stat(self, key: str) -> ObjectStat | None:
        """None: there is no such object."""
        try:
            head = self._call(key, lambda s3: s3.head_object(**self._object(key)))
        except MissingObjectError:
            return None
        return ObjectStat(head["ContentLength"], int(head["LastModified"].timestamp()) * 10**9)

    def upload(self, path: Path, key: str) -> None:
        """Writes or replaces an object by a file, in parts if it is large."""
        place, options = self._object(key), {"ExtraArgs": _CHECKED, "Config": in_parts()}
        self._call(key, lambda s3: s3.upload_file(str(path), **place, **options))

    def download(self, key: str, path: Path) -> None:
        """Writes an object to a file. Raises MissingObjectError."""
        place, options = self._object(key), {"Filename": str(path), "Config": in_parts()}
        self._call(key, lambda s3: s3.download_file(**place, **options))

    def delete(self, key: str) -> None:
        """Deletes an object, if it is there."""
        self._call(key, lambda s3: s3.delete_object(**self._object(key)))

    def list(self, folder: str = "") -> list[str]:
        """The keys of all objects below a folder, sorted."""
        return sorted(self.versions(folder))

    def versions(self, folder: str = "") -> dict[str, str]:
        """The same keys, each with its object's ETag, or else the time when it was written."""
        start = self._object(f"{folder}/" if folder else "")["Key"]
        place = {"Bucket": self.name, "Prefix": start}

        def list_all(s3: Any) -> dict[str, str]:
            pages = s3.get_paginator("list_objects_v2").paginate(**place)
            items = [item for page in pages for item in page.get("Contents", ())]
            return {item["Key"]: str(item.get("ETag", item["LastModified"])) for item in items}

        found = self._call(folder, list_all)
        return {key.removeprefix(self.prefix).lstrip("/"): mark for key, mark in found.items()}

    def _list_one(self) -> None:
        place = {"Bucket": self.name, "Prefix": self.prefix}
        self._call("", lambda s3: s3.list_objects_v2(**place, MaxKeys=1))

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": f"{self.prefix}/{key}".lstrip("/")}

    def _call(self, key: str, operation: Callable[[Any], _Result]) -> _Result:
        """Runs one operation, again and again while the server fails; the error names the object.

        botocore's own retries draw on a quota, which a server that fails often empties for good:
        after some hundred requests of which 30% fail, it gives up at a first failure.
        """
        s3, deadline, pause_s = self.client, 0.0, 0.1
        while True:
            try:
                return operation(s3)
            except boto3_errors() as error:
                deadline = deadline or time.monotonic() + self._patience_s
                if not may_pass(error) or time.monotonic() + pause_s > deadline:
                    raise explained(self.uri, key, error) from None
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
