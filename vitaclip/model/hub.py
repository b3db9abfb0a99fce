"""Weights by open_clip's tags, out of the local cache or from the hub that publishes them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import open_clip
from huggingface_hub import constants

_ATTEMPT_S = 15.0


def fetch_weights(tag_config: dict[str, Any]) -> Path:
    """The file of a tag; downloaded, unless the cache has it.

    The hub's client tries a connection again and again for most of a minute. Here one attempt
    decides: without a hub, the cache has to do, and what it lacks is an error at once.

    Raises:
        OSError, or an error of the hub's client: there is no such file in the cache, and it cannot
        be downloaded.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        return Path(open_clip.download_pretrained(tag_config))
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    if getproxies():
        return True  # the proxy knows what can be reached from here
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=_ATTEMPT_S).close()
    except OSError:
        return False
    return True
