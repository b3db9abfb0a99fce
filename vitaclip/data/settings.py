"""Where things live on this machine and what it allows, from environment variables: never part of an experiment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DataSettings(BaseSettings):
    """``VITACLIP_FRAME_CACHE``, a folder on local disk, and ``VITACLIP_FRAME_CACHE_GB`` (0: no cache).

    ``VITACLIP_MAX_FRAME_PIXELS`` bounds a video's frames, and so the memory that a hostile file can take.
    """

    model_config = SettingsConfigDict(env_prefix="VITACLIP_", frozen=True)

    frame_cache: Path = Path("~/.cache/vitaclip/frames")
    frame_cache_gb: float = Field(10.0, ge=0)
    # 4096 x 4096: every 4K video
    max_frame_pixels: int = Field(1 << 24, ge=1)
