"""The models that are measured: Vita-CLIP as in the paper, with random weights."""

from __future__ import annotations

import torch

from benchmarks.gpu.sizes import Sizes
from benchmarks.train_step import class_names
from testing.trained_models import moved
from vitaclip.config import BackboneConfig, ModelConfig
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import load_backbone


def backbone_of(sizes: Sizes) -> BackboneConfig:
    """Its weights are drawn, always the same: no file is needed, and no network."""
    return BackboneConfig(name=sizes.model, pretrained="random")


def model_of(sizes: Sizes, num_classes: int, precision: str) -> VitaCLIP:
    """On the CPU, away from where a training starts; always the same."""
    config = {"data": {"num_frames": sizes.num_frames}, "precision": precision}
    torch.manual_seed(0)
    backbone = load_backbone(backbone_of(sizes))
    model = VitaCLIP(backbone, ModelConfig.model_validate(config), class_names(num_classes))
    moved(model)
    return model


def clips_of(model: VitaCLIP, num_clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels ``[B, 3, T, H, W]`` as bytes and labels ``[B]``, on the CPU; always the same."""
    generator = torch.Generator().manual_seed(1)
    size = (num_clips, 3, model.num_frames, model.image_size, model.image_size)
    video = torch.randint(256, size, generator=generator, dtype=torch.uint8)
    labels = torch.randint(len(model.class_names), (num_clips,), generator=generator)
    return video, labels
