"""CLIP as it came: the mean of its frame features against plain class names. What every other
method is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone


def build(backbone: Backbone, config: ModelConfig, class_names: Sequence[str]) -> VideoModel:
    """A model in which nothing is trainable."""
    model = VideoModel(backbone, config, class_names)
    model.requires_grad_(False)
    return model
