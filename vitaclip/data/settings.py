"""Where things live on this machine and what it allows, from environment variables: never part of
an experiment.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DataSettings(BaseSettings):
    """``VITACLIP_FRAME_CACHE``, a folder on local disk, and ``VITACLIP_FRAME_CACHE_GB`` (0: no
    cache).

    ``VITACLIP_MAX_FRAME_PIXELS`` bounds a video's frames, and so the memory that a hostile file can
    take.
    """

    model_config = SettingsConfigDict(env_prefix="VITACLIP_", frozen=True)

    frame_cache: Path = Path("~/.cache/vitaclip/frames")
    frame_cache_gb: float = Field(10.0, ge=0)
    # 4096 x 4096: every 4K video
    max_frame_pixels: int = Field(1 << 24, ge=1)


def data_settings() -> DataSettings:
    """The settings as the environment has them now: cheap enough to ask for each file that is
    opened.
    """
    return _read_settings(tuple(map(os.environ.get, _VARIABLES)))


_VARIABLES = tuple(f"VITACLIP_{field.upper()}" for field in DataSettings.model_fields)


@functools.lru_cache(maxsize=1)
def _read_settings(values: tuple[str | None, ...]) -> DataSettings:
    return DataSettings()
