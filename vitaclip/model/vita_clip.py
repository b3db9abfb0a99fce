"""Vita-CLIP: a frozen CLIP with learned prompts in both towers (Wasim et al., CVPR 2023).

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config import Precision, PromptConfig, TextConfig, TrainConfig
from vitaclip.distributed import mixed_precision
from vitaclip.model.backbone import Backbone, empty_backbone, load_backbone
from vitaclip.model.text import TextPrompts, encode_text, group_prompts
from vitaclip.model.vision import VisionPrompts, encode_video

BACKBONE_PREFIX = "clip."

Shapes = dict[str, tuple[int, ...]]


class VitaCLIP(nn.Module):
    """The whole model. Everything outside ``clip`` is small and is what a checkpoint holds."""

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
        """Raises InputError if a depth exceeds the backbone's layers or a class name does not
        fit.
        """
        super().__init__()
        self.clip = backbone.clip
        self.backbone_sha256 = backbone.sha256
        self.class_names = tuple(class_names)
        self.precision = precision
        self.activation_checkpointing = activation_checkpointing
        self.compile_layers = compile_layers
        self.vision_prompts = VisionPrompts(self.clip.visual, prompts, num_frames)
        self.text_prompts = (
            TextPrompts(self.clip, text, len(class_names)) if text.num_context else None
        )
        self.logit_scale = nn.Parameter(self.clip.logit_scale.detach().clone())
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std), persistent=False)
        self.class_groups = group_prompts(
            self.class_names, self.clip.context_length, text.num_context
        )

    def encode_video(self, video_BCTHW: Tensor) -> Tensor:
        """Video features ``[B, E]``, not normalized, of uint8 pixels or of already normalized
        floats.
        """
        if video_BCTHW.dtype == torch.uint8:
            video_BCTHW = self.normalize_pixels(video_BCTHW)
        with self._autocast():
            return encode_video(
                self.clip,
                self.vision_prompts,
                video_BCTHW,
                activation_checkpointing=self.activation_checkpointing,
                compile_layers=self.compile_layers,
            )

    def normalize_pixels(self, video_BCTHW: Tensor) -> Tensor:
        """uint8 to CLIP's mean and deviation, on the video's own device."""
        mean, std = (stat.view(-1, 1, 1, 1) for stat in (self.pixel_mean, self.pixel_std))
        return (video_BCTHW.to(mean.dtype) / 255 - mean) / std

    def encode_classes(self) -> Tensor:
        """Text features ``[C, E]`` of the training classes with their learned context, not
        normalized.
        """
        with self._autocast():
            return encode_text(
                self.clip, self.class_groups, self.text_prompts, compile_layers=self.compile_layers
            )

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Text features ``[C, E]`` of plain names through the frozen tower (zero-shot protocol),
        not normalized.
        """
        with self._autocast():
            return encode_text(self.clip, group_prompts(names, self.clip.context_length, 0), None)

    def logits(self, video_BE: Tensor, text_CE: Tensor) -> Tensor:
        """``exp(logit_scale) * cos(video, text)``: ``[B, C]``, in full precision: bf16 would round
        60 to 60.5.
        """
        video_BE, text_CE = (
            features.to(self.logit_scale.dtype) for features in (video_BE, text_CE)
        )
        return (
            self.logit_scale.exp() * F.normalize(video_BE, dim=-1) @ F.normalize(text_CE, dim=-1).T
        )

    def learned_state(self) -> dict[str, Tensor]:
        """Everything but the backbone: what is trainable, and ``cls_proj`` where it is frozen."""
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith(BACKBONE_PREFIX)
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that an optimizer moves, by name."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What matrix products are computed in on the model's device; None: the weights' own
        type.
        """
        if self.precision == "mixed":
            return mixed_precision(self.logit_scale.device)
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def _autocast(self) -> torch.autocast:
        dtype = self.autocast_dtype
        return torch.autocast(self.logit_scale.device.type, dtype, enabled=dtype is not None)


def build_model(config: TrainConfig, class_names: Sequence[str]) -> VitaCLIP:
    """The model of one training run, prompts initialized from ``config.seed``, on the CPU."""
    backbone = load_backbone(config.backbone, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _build(backbone, config, class_names)


def learned_shapes(config: TrainConfig, class_names: Sequence[str]) -> Shapes:
    """The shapes of the learned state of such a model, which takes neither weights nor memory."""
    with torch.device("meta"):
        return shapes_of(
            _build(empty_backbone(config.backbone), config, class_names).learned_state()
        )


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Their shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _build(backbone: Backbone, config: TrainConfig, class_names: Sequence[str]) -> VitaCLIP:
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
