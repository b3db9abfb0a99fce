"""Models as if they had been trained, for tests that need no training."""

from __future__ import annotations

import torch
from torch import Tensor

from vitaclip.methods.video_model import VideoModel


def moved(model: VideoModel) -> VideoModel:
    """The model, each trainable parameter away from where it starts; always the same."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def two_clips(model: VideoModel) -> Tensor:
    """Normalized pixels ``[2, 3, T, H, W]`` that the model takes; always the same."""
    size = (2, 3, model.num_frames, model.image_size, model.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(2))
