"""S3-compatible object storage: AWS, MinIO, Ceph, R2, by endpoint."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import ConnectionError as S3ConnectionError

from orchestrator.storage.stores.base import (
    KeyExistsError,
    MissingKeyError,
    Store,
    StoreError,
    checked_key,
)
from vitaclip.errors import InputError
from vitaclip.s3_endpoint import s3_endpoint

_PATIENCE_S = 300.0  # how long an operation is tried again before its failure is raised
_PROBE_PATIENCE_S = (
    3.0  # the same at a sweep's start, where a server that is away is reported in seconds
)
_LONGEST_PAUSE_S = 10.0
_ADDRESSING_STYLES = ("auto", "virtual", "path")
_NUM_READERS = 16  # requests under way at once when many texts are read
_Result = TypeVar("_Result")


class S3Store(Store):
    """A prefix in a bucket. An object appears when its whole body has arrived and its checksum was
    right.

    ``S3_ENDPOINT_URL`` names the server if it is not Amazon's, ``S3_ADDRESSING_STYLE`` where bucket
    names stand in its addresses; credentials and region are AWS's own settings.
    """

    def __init__(self, bucket: str, prefix: str, *, patience_s: float = _PATIENCE_S) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._patience_s = patience_s

    @cached_property
    def _client(self) -> Any:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=60,
            s3={"addressing_style": _addressing_style()},
        )
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
        return session.client("s3", endpoint_url=s3_endpoint(), config=config)

    @cached_property
    def _transfer(self) -> Any:
        return TransferConfig(
            multipart_threshold=16 * 2**20,
            multipart_chunksize=16 * 2**20,
            max_concurrency=4,
            preferred_transfer_client="classic",
        )

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}".lstrip("/")}

    def _call(self, key: str, operation: Callable[[], _Result]) -> _Result:
        """Runs one S3 operation, again and again while the server fails; the error names the
        object.

        botocore's own retries draw on a quota, which a server that fails often empties for good:
        after some hundred requests of which 30% fail, it gives up at a first failure.
        """
        deadline, pause_s = 0.0, 0.1
        while True:
            try:
                return operation()
            except (BotoCoreError, Boto3Error, ClientError) as error:
                deadline = deadline or time.monotonic() + self._patience_s
                if not _may_pass(error) or time.monotonic() + pause_s > deadline:
                    raise self._explained(key, error) from None
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _explained(self, key: str, error: Exception) -> StoreError:
        code = _error_code(error)
        if code in ("NoSuchKey", "404"):
            return MissingKeyError(f"{self.uri}: there is no {key}")
        if code in ("PreconditionFailed", "412"):
            return KeyExistsError(f"{self.uri}: {key} exists already")
        return StoreError(f"{self.uri}: {key}: {error}{_S3_ADVICE.get(code, '')}")

    def _put(self, key: str, data: bytes) -> None:
        body = {"Body": data, "ChecksumAlgorithm": "SHA256"}
        self._call(key, lambda: self._client.put_object(**self._object(key), **body))

    def _create(self, key: str, data: bytes) -> bool:
        body = {"Body": data, "ChecksumAlgorithm": "SHA256", "IfNoneMatch": "*"}
        try:
            self._call(key, lambda: self._client.put_object(**self._object(key), **body))
        except KeyExistsError:
            return False
        return True

    def _get(self, key: str) -> bytes:
        source = self._object(key)
        return self._call(key, lambda: bytes(self._client.get_object(**source)["Body"].read()))

    def read_texts(self, keys: Sequence[str]) -> Iterator[str]:
        """Many texts, in the order of their keys: several requests at once, for each takes its
        time.
        """
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            yield from pool.map(self.read_text, keys)

    def _upload_file(self, path: Path, key: str) -> None:
        extra = {"ChecksumAlgorithm": "SHA256"}
        target = self._object(key)
        self._call(
            key,
            lambda: self._client.upload_file(
                str(path), **target, ExtraArgs=extra, Config=self._transfer
            ),
        )

    def _download_file(self, key: str, path: Path) -> None:
        source = self._object(key)
        self._call(
            key,
            lambda: self._client.download_file(**source, Filename=str(path), Config=self._transfer),
        )

    def _delete_keys(self, keys: list[str]) -> None:
        for key in keys:
            self._call(key, lambda key=key: self._client.delete_object(**self._object(key)))  # type: ignore[misc]

    def exists(self, key: str) -> bool:
        try:
            self._call(key, lambda: self._client.head_object(**self._object(checked_key(key))))
        except MissingKeyError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        start = self._object(checked_key(prefix) + "/" if prefix else "")
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=start["Key"]
        )
        found = self._call(
            prefix, lambda: [item["Key"] for page in pages for item in page.get("Contents", ())]
        )
        return sorted(key.removeprefix(self.prefix).lstrip("/") for key in found)

    def check(self) -> None:
        if self._patience_s > _PROBE_PATIENCE_S:
            S3Store(self.bucket, self.prefix, patience_s=_PROBE_PATIENCE_S).check()
        else:
            super().check()


# Of AWS's documented errors, those that say "later" with a status that otherwise means "never".
_TEMPORARY_CODES = {
    *(
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
    ),
    *("Throttling", "ThrottlingException", "TooManyRequestsException"),
}
_PASSING = (
    S3ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    RetriesExceededError,
)
_S3_ADVICE = {
    "NotImplemented": "; the server must know conditional writes ('If-None-Match' on PUT)",
    "NoSuchBucket": "; create the bucket, or name another in VITACLIP_STORE",
    "403": "; check the credentials (AWS_ACCESS_KEY_ID and its secret, or AWS_PROFILE) and their "
    "rights",
    "AccessDenied": "; check the credentials' rights on this bucket",
    "InvalidAccessKeyId": "; check AWS_ACCESS_KEY_ID, or AWS_PROFILE, and S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": "; check AWS_SECRET_ACCESS_KEY",
}


def _addressing_style() -> str:
    """``virtual``: bucket.server, ``path``: server/bucket, ``auto``: what fits. Raises InputError
    for anything else.
    """
    found = os.environ.get("S3_ADDRESSING_STYLE", "").strip() or "auto"
    if found.lower() not in _ADDRESSING_STYLES:
        raise InputError(
            f"S3_ADDRESSING_STYLE: found {found!r}, allowed: {', '.join(_ADDRESSING_STYLES)}"
        )
    return found.lower()


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: connections, bodies that break off, an overloaded
    server.
    """
    cause = _cause(error)
    if isinstance(cause, ClientError):
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in (429, 500, 502, 503, 504) or _error_code(cause) in _TEMPORARY_CODES
    return isinstance(cause, _PASSING)


def _error_code(error: Exception) -> str:
    response = getattr(_cause(error), "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _cause(error: Exception) -> BaseException:
    """boto3 words a failed upload anew and keeps the server's answer behind it."""
    return error.__context__ or error if isinstance(error, S3UploadFailedError) else error
