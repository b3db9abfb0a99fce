"""Where records and checkpoints live: a local folder or S3-compatible object storage, behind one class.

Keys are relative, with forward slashes. Every single write is atomic. A folder (a checkpoint) is published by
writing its files first and ``manifest.json`` (sizes, SHA-256) last: without the manifest it does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict

from vitaclip.errors import InputError, VitaClipError

MANIFEST = "manifest.json"
_MAX_ATTEMPTS = 10
_Result = TypeVar("_Result")


class StoreError(VitaClipError):
    """The store refused or lost an operation, after all retries."""


class MissingKeyError(StoreError):
    """Nothing is stored under this key."""


class KeyExistsError(StoreError):
    """A record that is written once exists already, with other content."""


class S3Settings(BaseSettings):
    """Which S3 server: ``S3_ENDPOINT_URL``, ``S3_ADDRESSING_STYLE``. Credentials and region are AWS's own."""

    model_config = SettingsConfigDict(env_prefix="S3_")

    endpoint_url: str | None = None
    addressing_style: Literal["auto", "virtual", "path"] = "auto"


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
        """Writes or replaces one JSON value, atomically. NaN and infinity are refused (ValueError)."""
        self._put(_checked(key), _to_json(value, indent))

    def create_json(self, key: str, value: object) -> None:
        """Writes a value that is written once.

        Writing the identical value again is accepted, since a retried request may have succeeded unseen.

        Raises:
            KeyExistsError: another value stands there already; it is left as it is.
        """
        data = _to_json(value, indent=1)
        if not self._create(_checked(key), data) and self._get(key) != data:
            raise KeyExistsError(f"{self.uri}: {key} exists already and is never rewritten")

    def read_json(self, key: str) -> Any:
        """Raises MissingKeyError naming the key, or StoreError where the content is no JSON."""
        try:
            return json.loads(self._get(_checked(key)))
        except ValueError as error:
            raise StoreError(
                f"{self.uri}: {key} is not JSON ({error}); delete it or restore it from a copy"
            ) from None

    def upload_folder(self, folder: Path, prefix: str) -> None:
        """Publishes the files of ``folder`` under ``prefix``; an earlier folder there is withdrawn first."""
        self.delete(prefix)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        entries = [_manifest_entry(path, path.relative_to(folder).as_posix()) for path in files]
        for path, entry in zip(files, entries, strict=True):
            self._upload_file(path, f"{_checked(prefix)}/{entry['path']}")
        self.write_json(f"{prefix}/{MANIFEST}", {"files": entries})

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Copies a published folder into ``folder`` and verifies every file against the manifest.

        Raises:
            MissingKeyError: there is no whole folder under ``prefix``.
            StoreError: a file's size or SHA-256 still differs after a second download.
        """
        for entry in self.read_json(f"{prefix}/{MANIFEST}")["files"]:
            target = folder / _checked(entry["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            self._download_verified(f"{prefix}/{entry['path']}", target, entry)

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
        self._download_file(_checked(key), path)

    def delete(self, prefix: str) -> None:
        """Deletes the key ``prefix`` and all below, manifests first: no folder looks whole while it goes."""
        keys = self.list(_checked(prefix)) + ([prefix] if self.exists(prefix) else [])
        manifests = [key for key in keys if PurePosixPath(key).name == MANIFEST]
        self._delete_keys(manifests)
        self._delete_keys([key for key in keys if key not in manifests])

    def check(self) -> None:
        """Writes, rewrites, reads, lists and deletes a probe. Raises InputError with the reason."""
        key = f".probe-{uuid.uuid4().hex}/probe.json"
        try:
            self.write_json(key, 1)
            kept = not self._create(key, _to_json(2, None)) and self.read_json(key) == 1
            self.delete(key)
        except (OSError, StoreError) as error:
            raise InputError(
                f"store {self.uri}: cannot be written and read: {error}; set VITACLIP_STORE to a folder or "
                "s3://bucket/prefix that can"
            ) from None
        if not kept:
            raise InputError(
                f"store {self.uri}: overwrites what must be written once: the server ignores 'If-None-Match' on "
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
            os.link(staged, path)  # unlike a rename, fails if the name is taken
            _sync(path.parent)
        except FileExistsError:
            return False
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
        return self._path(_checked(key)).is_file()

    def list(self, prefix: str) -> list[str]:
        folder = self._path(_checked(prefix)) if prefix else self.root
        paths = (
            path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".staged-")
        )
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

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


class S3Store(Store):
    """A prefix in a bucket. An object appears when its whole body has arrived and its checksum was right."""

    def __init__(self, bucket: str, prefix: str, *, max_attempts: int = _MAX_ATTEMPTS) -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._max_attempts = max_attempts

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        settings = S3Settings()
        config = Config(
            retries={"mode": "standard", "total_max_attempts": self._max_attempts},
            connect_timeout=5,
            read_timeout=60,
            s3={"addressing_style": settings.addressing_style},
        )
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
        return session.client("s3", endpoint_url=settings.endpoint_url, config=config)

    @cached_property
    def _transfer(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=16 * 2**20,
            multipart_chunksize=16 * 2**20,
            max_concurrency=4,
            num_download_attempts=self._max_attempts,
            preferred_transfer_client="classic",
        )

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}".lstrip("/")}

    def _call(self, key: str, operation: Callable[[], _Result]) -> _Result:
        """Runs one S3 operation; a failure that outlives the retries names the object and what to do."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return operation()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                raise MissingKeyError(f"{self.uri}: there is no {key}") from None
            if code in ("PreconditionFailed", "412"):
                raise KeyExistsError(f"{self.uri}: {key} exists already") from None
            raise StoreError(f"{self.uri}: {key}: {error}{_S3_ADVICE.get(code, '')}") from None
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(f"{self.uri}: {key}: {error}") from None

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
        return self._call(key, lambda: self._read_object(key))

    def _read_object(self, key: str) -> bytes:
        """botocore retries requests, but not a body that breaks off."""
        from botocore.exceptions import FlexibleChecksumError, IncompleteReadError, ResponseStreamingError

        for _ in range(self._max_attempts - 1):
            with contextlib.suppress(FlexibleChecksumError, IncompleteReadError, ResponseStreamingError):
                return bytes(self._client.get_object(**self._object(key))["Body"].read())
        return bytes(self._client.get_object(**self._object(key))["Body"].read())

    def _upload_file(self, path: Path, key: str) -> None:
        extra = {"ChecksumAlgorithm": "SHA256"}
        target = self._object(key)
        self._call(
            key, lambda: self._client.upload_file(str(path), **target, ExtraArgs=extra, Config=self._transfer)
        )

    def _download_file(self, key: str, path: Path) -> None:
        source = self._object(key)
        self._call(
            key, lambda: self._client.download_file(**source, Filename=str(path), Config=self._transfer)
        )

    def _delete_keys(self, keys: list[str]) -> None:
        for key in keys:
            self._call(key, lambda key=key: self._client.delete_object(**self._object(key)))  # type: ignore[misc]

    def exists(self, key: str) -> bool:
        try:
            self._call(key, lambda: self._client.head_object(**self._object(_checked(key))))
        except MissingKeyError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        start = self._object(_checked(prefix) + "/" if prefix else "")
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=start["Key"]
        )
        found = self._call(
            prefix, lambda: [item["Key"] for page in pages for item in page.get("Contents", ())]
        )
        return sorted(key.removeprefix(self.prefix).lstrip("/") for key in found)

    def check(self) -> None:
        if self._max_attempts > 3:  # an unreachable server is reported in seconds
            S3Store(self.bucket, self.prefix, max_attempts=3).check()
        else:
            super().check()


_S3_ADVICE = {
    "NotImplemented": "; the server must know conditional writes ('If-None-Match' on PUT)",
    "NoSuchBucket": "; create the bucket, or name another in VITACLIP_STORE",
    "403": "; check the credentials (AWS_ACCESS_KEY_ID and its secret, or AWS_PROFILE) and their rights",
    "AccessDenied": "; check the credentials' rights on this bucket",
    "InvalidAccessKeyId": "; check AWS_ACCESS_KEY_ID, or AWS_PROFILE, and S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": "; check AWS_SECRET_ACCESS_KEY",
}


def open_store(uri: str) -> Store:
    """A store at a local path, a ``file://`` URI or ``s3://bucket/prefix``. Nothing is contacted yet.

    Raises:
        InputError: the URI has another scheme, or names no bucket.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise InputError(f"store {uri!r}: found no bucket, allowed is s3://bucket or s3://bucket/prefix")
        return S3Store(parts.netloc, parts.path)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme or not uri:
        raise InputError(f"store {uri!r}: allowed are a folder, file:///folder and s3://bucket/prefix")
    return LocalStore(Path(uri))


def _checked(key: str) -> str:
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "/".join(parts) != key:
        raise StoreError(f"key {key!r}: allowed are relative paths with single slashes and no '..'")
    return key


def _to_json(value: object, indent: int | None) -> bytes:
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
