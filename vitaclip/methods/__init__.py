"""Ways of adapting CLIP to video, a file each.

A new method is a file here with a function ``build``, its name in :data:`MethodName`, and its line
below, which mypy asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, assert_never

if TYPE_CHECKING:
    from vitaclip.config.model import ModelConfig
    from vitaclip.methods.video_model import VideoModel
    from vitaclip.model.backbone import Backbone

    Build = Callable[[Backbone, ModelConfig, Sequence[str]], VideoModel]

MethodName = Literal["vita_clip", "frozen_clip"]


def builder(method: MethodName) -> Build:
    """What builds the models of a method, of a backbone, a config and the trained classes."""
    # Configs name methods, and know no torch: a method is imported when one is built.
    match method:
        case "vita_clip":
            from vitaclip.methods import vita_clip

            return vita_clip.build
        case "frozen_clip":
            from vitaclip.methods import frozen_clip

            return frozen_clip.build
        case unknown:
            assert_never(unknown)
