"""CLIP as it came: the mean of its frame features against plain class names. What every other
method is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

from vitaclip.config.model import ModelConfig, PromptConfig, TextConfig
from vitaclip.methods import vita_clip
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone

NO_PROMPTS = PromptConfig(num_global=0, local=False, summary=False, time_embedding=False)
NO_CONTEXT = TextConfig(num_context=0)


def build(backbone: Backbone, config: ModelConfig, class_names: Sequence[str]) -> VideoModel:
    """Vita-CLIP without any prompt. Nothing in it is trainable."""
    config = config.model_copy(update={"prompts": NO_PROMPTS, "text": NO_CONTEXT})
    model = vita_clip.build(backbone, config, class_names)
    model.requires_grad_(False)
    return model
