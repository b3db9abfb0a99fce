"""Residual feature distillation from the frozen CLIP: FROSTER (Huang et al., ICLR 2024, section
3.2).

A model's features may differ from the frozen CLIP's by what a small projection of them can explain,
so that they learn from videos and still generalize as CLIP's do. Written from the paper and the
authors' code (Visual-AI/FROSTER); theirs compares each frame, this the mean over frames.

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitaclip.config import TrainConfig
from vitaclip.methods.video_model import FrozenWeights, VideoModel
from vitaclip.model.backbone import load_backbone


class Distillation:
    """The loss term of one training."""

    def __init__(self, model: VideoModel, config: TrainConfig) -> None:
        """Loads the frozen CLIP anew; the weights that ``model`` leaves frozen are in memory
        once.
        """
        self._model = model
        self._weight = config.regularizers.distillation
        self._clip = VideoModel(load_backbone(config.backbone, seed=config.seed), config)
        self._clip.requires_grad_(False).placed_on(model.device)
        pool: FrozenWeights = {}
        for either in (model, self._clip):
            either.share_frozen(pool)
        with torch.no_grad():
            self._text_CE = self._clip.encode_names(model.trained_texts())

    def __call__(self, video_BCTHW: Tensor, features: Tensor, text_CE: Tensor) -> Tensor:
        """What is added to the mean loss of a batch.

        Args:
            video_BCTHW: the clips, as models take them.
            features: what the model made of them.
            text_CE: its features of the trained classes.
        """
        with torch.no_grad():
            wanted_BE = self._clip.encode_video(video_BCTHW)
        residual = self._model.residual
        assert residual is not None, "the model was built of this config"
        loss = _distance(residual.video(self._model.video_features(features)), wanted_BE)
        if self._model.learns_texts:
            loss = loss + _distance(residual.text(text_CE), self._text_CE)
        return self._weight * loss


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(found.float(), wanted.float(), dim=-1).mean()
