"""What training, evaluation and checkpoints ask of a model, whichever method made it.

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, E embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import Precision
from vitaclip.distributed import mixed_precision
from vitaclip.model.backbone import Backbone
from vitaclip.model.text import encode_text, group_prompts

BACKBONE_PREFIX = "clip."

Shapes = dict[str, tuple[int, ...]]


class VideoModel(nn.Module, ABC):
    """A frozen CLIP, and what a method learns beside it.

    Everything outside ``clip`` is small and is what a checkpoint holds. A method must say how it
    encodes clips and its trained classes; the rest has a usual form, which it may replace.
    """

    def __init__(
        self, backbone: Backbone, class_names: Sequence[str], *, precision: Precision = "fp32"
    ) -> None:
        """``class_names`` are those of the training; none: it has learned no classes."""
        super().__init__()
        self.clip = backbone.clip
        self.backbone_sha256 = backbone.sha256
        self.class_names = tuple(class_names)
        self.precision = precision
        self.logit_scale = nn.Parameter(self.clip.logit_scale.detach().clone())
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std), persistent=False)

    @abstractmethod
    def encode_video(self, video_BCTHW: Tensor) -> Tensor:
        """Video features ``[B, E]``, not normalized, of uint8 pixels or of already normalized
        floats.
        """

    @abstractmethod
    def encode_classes(self) -> Tensor:
        """Text features ``[C, E]`` of the training classes as the method learned to read them, not
        normalized.
        """

    @property
    @abstractmethod
    def learns_texts(self) -> bool:
        """Whether training changes how its classes are read."""

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Text features ``[C, E]`` of plain names through the frozen tower (zero-shot protocol),
        not normalized.
        """
        with self.autocast():
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

    def normalize_pixels(self, video_BCTHW: Tensor) -> Tensor:
        """uint8 to CLIP's mean and deviation, on the video's own device."""
        mean, std = (stat.view(-1, 1, 1, 1) for stat in (self.pixel_mean, self.pixel_std))
        return (video_BCTHW.to(mean.dtype) / 255 - mean) / std

    def learned_state(self) -> dict[str, Tensor]:
        """Everything but the backbone: what is trainable, and what belongs to it."""
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

    def share_backbone(self, other: VideoModel) -> None:
        """Takes the equal CLIP of another model in place of its own, so that memory holds one."""
        self.clip = other.clip

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the frames that it takes."""
        return int(self.clip.visual.image_size[0])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.logit_scale.device

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What matrix products are computed in on the model's device; None: the weights' own
        type.
        """
        if self.precision == "mixed":
            return mixed_precision(self.device)
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> torch.autocast:
        """The context in which the towers compute."""
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Their shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
