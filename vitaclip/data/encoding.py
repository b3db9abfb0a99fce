"""How prepared videos are encoded (:mod:`vitaclip.data.prepare` does it)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrepareParameters:
    """How videos are encoded. A change of any of these makes prepared videos stale."""

    short_side: int = 256  # pixels; smaller videos keep their size
    crf: int = 23  # x264's constant quality: lower is better and larger
    group_size: int = 12  # frames from one key frame to the next
    preset: str = "medium"

    def encoder_options(self) -> dict[str, str]:
        """Options of libx264. Threads: videos are encoded in parallel, not frames."""
        group = (
            f"keyint={self.group_size}:min-keyint={self.group_size}:"
            "scenecut=0:bframes=3:b-adapt=0:b-pyramid=none"
        )
        options = {"crf": str(self.crf), "preset": self.preset, "tune": "fastdecode"}
        return {**options, "x264-params": f"{group}:threads=1", "movflags": "faststart"}
