"""Where things live on this machine, from environment variables: never part of an experiment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitaclip.data.frame_cache import FrameCache


class DataSettings(BaseSettings):
    """``VITACLIP_FRAME_CACHE``, a folder on local disk, and ``VITACLIP_FRAME_CACHE_GB`` (0: no cache)."""

    model_config = SettingsConfigDict(env_prefix="VITACLIP_", frozen=True)

    frame_cache: Path = Path("~/.cache/vitaclip/frames")
    frame_cache_gb: float = Field(10.0, ge=0)


def open_frame_cache() -> FrameCache:
    """The machine's shared cache of decoded frames."""
    settings = DataSettings()
    root = settings.frame_cache.expanduser()
    return FrameCache(root, int(settings.frame_cache_gb * 1e9))
