"""Text prompts alone: a frozen CLIP whose class names stand in a learned context.

CoOp (Zhou et al., IJCV 2022), with a context for all classes or, class-specific (CSC), for each;
``train.text`` says which. Frames are averaged, as in the video form of Ju et al. (ECCV 2022)
without its temporal layers.
"""

from __future__ import annotations

from collections.abc import Sequence

from vitaclip.config.model import ModelConfig, PromptConfig
from vitaclip.errors import InputError
from vitaclip.methods.video_model import VideoModel
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import Backbone

NO_PROMPTS = PromptConfig(num_global=0, local=False, summary=False, time_embedding=False)


def build(backbone: Backbone, config: ModelConfig, class_names: Sequence[str]) -> VideoModel:
    """Vita-CLIP without visual prompts.

    Raises:
        InputError: there is no context to learn, or a class name does not fit beside it.
    """
    if not config.text.num_context:
        raise InputError(
            "text.num_context: found 0, text_prompts needs 1 or more; frozen_clip learns none"
        )
    return VitaCLIP(backbone, config.model_copy(update={"prompts": NO_PROMPTS}), class_names)
