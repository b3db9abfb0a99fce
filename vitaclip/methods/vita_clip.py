"""Vita-CLIP: a frozen CLIP with learned prompts in both towers (Wasim et al., CVPR 2023).

Shape legend: C classes, T frames, F = B * T frames, N = 1 + patches, D width, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone
from vitaclip.model.text import TextPrompts, encode_text, tokenize_classes
from vitaclip.model.vision import VisionLayer
from vitaclip.model.vision_prompts import VisionPrompts


class VitaCLIP(VideoModel):
    """The whole model: the prompts are in :mod:`vitaclip.model`."""

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        """Builds a model whose prompts are drawn from PyTorch's global random numbers.

        Raises:
            InputError: a depth exceeds the backbone's layers, or a class name does not fit.
        """
        super().__init__(backbone, config, class_names)
        text = config.text
        self.vision_prompts = VisionPrompts(self.clip.visual, config.prompts, self.num_frames)
        self.text_prompts = (
            TextPrompts(self.clip, text, len(class_names)) if text.num_context else None
        )
        self.class_tokens = tokenize_classes(
            self.class_names, self.clip.context_length, text.num_context
        )
        self.class_texts = self.text_prompts.pack(self.class_tokens) if self.text_prompts else None
        self.learns_texts = self.text_prompts is not None

    def vision_layers(self) -> Iterable[VisionLayer]:
        return self.vision_prompts.with_global_prompts()

    def add_time(self, x_FND: Tensor, num_frames: int) -> Tensor:
        return self.vision_prompts.add_time(x_FND, num_frames)

    def encode_classes(self) -> Tensor:
        if self.text_prompts is None or self.class_texts is None:
            return super().encode_classes()
        with self.autocast():
            return encode_text(
                self.clip, self.class_texts, self.text_prompts, compile_layers=self.runs_compiled
            )


build = VitaCLIP
