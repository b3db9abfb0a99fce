"""Which S3 server is meant, for everything here that speaks to one. Credentials and region are
AWS's own settings.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from vitaclip.errors import InputError

_VARIABLE = "S3_ENDPOINT_URL"


def s3_endpoint() -> str | None:
    """The server's address out of ``S3_ENDPOINT_URL``; None, if that is not set or empty: Amazon's.

    Raises:
        InputError: it is no address such as ``https://minio.example:9000``.
    """
    found = os.environ.get(_VARIABLE, "").strip()
    if not found:
        return None
    try:
        parts = urlsplit(found)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_address = False
    if not is_address or parts.username is not None:
        raise InputError(
            f"{_VARIABLE}: found {found.rpartition('@')[2]!r}, allowed is an address such as "
            "https://minio.example:9000, without user and password"
        )
    return found
