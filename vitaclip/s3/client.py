"""boto3's client of S3, as the environment asks for it; boto3 is imported when one is opened."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any
from urllib.parse import urlsplit

from vitaclip.errors import InputError
from vitaclip.extras import missing_package

_PART_BYTES = 16 * 2**20
_BLOCK_BYTES = 2**20
_NUM_CONNECTIONS = 32
_ADDRESSING_STYLES = ("auto", "virtual", "path")


def open_client() -> Any:
    """A client of the server that the environment names.

    Raises:
        InputError: the environment names no server, or boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise missing_package("S3", error) or error from None
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=_NUM_CONNECTIONS,
        # The body's SHA-256 stands before it twice, for servers compare one or the other. boto3's
        # own way with HTTPS, a checksum behind the body, leaves out its length: Ceph 16 refuses it.
        request_checksum_calculation="when_required",
        s3={"addressing_style": _addressing_style(), "payload_signing_enabled": True},
    )
    session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
    client = session.client("s3", endpoint_url=_endpoint(), config=config)
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"before-parameter-build.s3.{operation}", _add_checksum)
    return client


def in_parts() -> Any:
    """How large files are sent: in parts, a few at once."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=_PART_BYTES,
        multipart_chunksize=_PART_BYTES,
        max_concurrency=4,
        preferred_transfer_client="classic",
    )


def _add_checksum(params: dict[str, Any], **_: object) -> None:
    body = params["Body"]
    digest = hashlib.sha256(body) if isinstance(body, bytes) else _file_digest(body)
    params["ChecksumSHA256"] = base64.b64encode(digest.digest()).decode()


def _file_digest(file: Any) -> Any:
    digest, start = hashlib.sha256(), file.tell()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    file.seek(start)
    return digest


def _endpoint() -> str | None:
    """The server's address out of ``S3_ENDPOINT_URL``; None, if that is not set or empty: Amazon's.

    Raises:
        InputError: it is no address such as ``https://minio.example:9000``.
    """
    found = os.environ.get("S3_ENDPOINT_URL", "").strip()
    if not found:
        return None
    try:
        parts = urlsplit(found)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_address = False
    if not is_address or parts.username is not None:
        raise InputError(
            f"S3_ENDPOINT_URL: found {found.rpartition('@')[2]!r}, allowed is an address such as "
            "https://minio.example:9000, without user and password"
        )
    return found


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
