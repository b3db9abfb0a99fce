"""Blends of a trained model with the frozen CLIP that it started from.

Robust fine-tuning (WiSE-FT: Wortsman et al., CVPR 2022) moves the weights back towards where they
came from, and finds models that are good at trained and at new classes. Where a method trains
CLIP's own weights, or changes of them, the weights are blended; where it adds parts that the frozen
CLIP has not, such as prompts, the features of both are, of videos and of texts.

``alpha`` is the training's share: 0 is the frozen CLIP, 1 the trained model.

Shape legend: B clips, C classes, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitaclip.evaluation import Classifier, Encode
from vitaclip.methods.video_model import VideoModel, scaled_cosines

# A model with the classes of a split, as a protocol reads them.
Classify = Callable[[VideoModel], Classifier]


def blend(model: VideoModel, clip: VideoModel, alpha: float, classify: Classify) -> Classifier:
    """A classifier between a trained model and the frozen CLIP.

    Args:
        model: the trained one.
        clip: the frozen CLIP that it started from.
        alpha: the share of the trained one, from 0 to 1.
        classify: gives a model its classes.
    """
    starts = model.frozen_counterparts(clip)
    if starts is None:
        return FeatureBlend(model, classify(model).text_CE, classify(clip), alpha)
    with _blended_weights(model, starts, alpha):
        text_CE = classify(model).text_CE
    return WeightBlend(model, text_CE, starts, alpha)


@dataclass(frozen=True)
class WeightBlend(Classifier):
    """The model with each weight between where it started and where it is."""

    starts: Mapping[str, Tensor]
    alpha: float

    def logits(self, encode: Encode) -> Tensor:
        with _blended_weights(self.model, self.starts, self.alpha):
            return self.model.logits(encode.anew(self.model), self.text_CE)


@dataclass(frozen=True)
class FeatureBlend(Classifier):
    """Normalized features between the frozen CLIP's and the model's."""

    clip: Classifier
    alpha: float

    def logits(self, encode: Encode) -> Tensor:
        own = self.model.read(encode(self.model), self.text_CE)
        clips = self.clip.model.read(encode(self.clip.model), self.clip.text_CE)
        video_BE, texts = (
            torch.lerp(F.normalize(start, dim=-1), F.normalize(end, dim=-1), self.alpha)
            for start, end in zip(clips, own, strict=True)
        )
        scale = torch.lerp(self.clip.model.logit_scale, self.model.logit_scale, self.alpha)
        return scaled_cosines(video_BE, texts, scale.exp())


@contextmanager
def _blended_weights(
    model: VideoModel, starts: Mapping[str, Tensor], alpha: float
) -> Iterator[None]:
    parameters = dict(model.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in starts}
    with torch.no_grad():
        for name, start in starts.items():
            parameters[name].copy_(torch.lerp(start, kept[name], alpha))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weights in kept.items():
                parameters[name].copy_(weights)
