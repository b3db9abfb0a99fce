"""Vita-CLIP: a frozen CLIP with learned prompts in both towers (Wasim et al., CVPR 2023).

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitaclip.config.model import ModelConfig, Precision, PromptConfig, TextConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone
from vitaclip.model.text import TextPrompts, encode_text, group_prompts
from vitaclip.model.vision import VisionPrompts, encode_video


def build(backbone: Backbone, config: ModelConfig, class_names: Sequence[str]) -> VideoModel:
    """The model of one training run, on the backbone's device."""
    return VitaCLIP(
        backbone,
        config.prompts,
        config.text,
        class_names,
        num_frames=config.data.num_frames,
        precision=config.precision,
        activation_checkpointing=config.activation_checkpointing,
        compile_layers=config.compile,
    )


class VitaCLIP(VideoModel):
    """The whole model: the towers are in :mod:`vitaclip.model`."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptConfig,
        text: TextConfig,
        class_names: Sequence[str],
        *,
        num_frames: int,
        precision: Precision = "fp32",
        activation_checkpointing: bool = False,
        compile_layers: bool = False,
    ) -> None:
        """Builds a model whose prompts are drawn from PyTorch's global random numbers.

        Args:
            backbone: the CLIP, which stays as it is.
            prompts: those of the vision tower.
            text: those of the text tower.
            class_names: of the training; none: there is no text prompt to learn.
            num_frames: of a clip.
            precision: of matrix products.
            activation_checkpointing: recompute each vision layer in the backward pass.
            compile_layers: compile each layer with ``torch.compile``.

        Raises:
            InputError: a depth exceeds the backbone's layers, or a class name does not fit.
        """
        super().__init__(backbone, class_names, precision=precision)
        self.activation_checkpointing = activation_checkpointing
        self.compile_layers = compile_layers
        self.vision_prompts = VisionPrompts(self.clip.visual, prompts, num_frames)
        self.text_prompts = (
            TextPrompts(self.clip, text, len(class_names)) if text.num_context else None
        )
        self.class_groups = group_prompts(
            self.class_names, self.clip.context_length, text.num_context
        )

    @property
    def learns_texts(self) -> bool:
        return self.text_prompts is not None

    def encode_video(self, video_BCTHW: Tensor) -> Tensor:
        if video_BCTHW.dtype == torch.uint8:
            video_BCTHW = self.normalize_pixels(video_BCTHW)
        with self.autocast():
            return encode_video(
                self.clip,
                self.vision_prompts,
                video_BCTHW,
                activation_checkpointing=self.activation_checkpointing,
                compile_layers=self.compile_layers,
            )

    def encode_classes(self) -> Tensor:
        with self.autocast():
            return encode_text(
                self.clip, self.class_groups, self.text_prompts, compile_layers=self.compile_layers
            )
