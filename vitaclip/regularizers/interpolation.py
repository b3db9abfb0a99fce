"""Interpolation regularization: Open-VCLIP (Weng et al., ICML 2023, section 3.2).

The training also lowers the loss of weights somewhere between CLIP's and its own, so that blends of
the two are good as well. Written from the paper and the authors' code (wengzejia1/Open-VCLIP), in
which the gradient at the blend is added as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitaclip.config import TrainConfig
from vitaclip.errors import InputError
from vitaclip.methods.video_model import VideoModel, is_clips_own


class Interpolation:
    """Blends of the weights of one training with what they started from."""

    def __init__(self, model: VideoModel, config: TrainConfig) -> None:
        """``model`` must be as it is before its first step, and pass ``check_interpolation``."""
        self.weight = config.regularizers.interpolation
        self._reach, self._seed = config.regularizers.interpolation_reach, config.seed
        own = [p for name, p in model.trainable().items() if is_clips_own(name)]
        self._weights = [(parameter, parameter.detach().clone()) for parameter in own]

    @contextmanager
    def blended(self, step: int) -> Iterator[None]:
        """Inside, the model has blended weights, drawn for this step of the training; gradients
        stay.
        """
        share = random.Random(f"{self._seed}/{step}").uniform(0, self._reach)
        kept = [parameter.detach().clone() for parameter, _ in self._weights]
        with torch.no_grad():
            for parameter, start in self._weights:
                parameter.lerp_(start, share)
        try:
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), weights in zip(self._weights, kept, strict=True):
                    parameter.copy_(weights)


def check_interpolation(model: VideoModel, config: TrainConfig) -> None:
    """Raises InputError if interpolation is wanted of a model whose CLIP stays as it is."""
    if config.regularizers.interpolation and not any(map(is_clips_own, model.trainable())):
        raise InputError(
            f"regularizers.interpolation: found {config.regularizers.interpolation:g}, "
            f"{config.method.name} trains none of CLIP's own weights; allowed is 0"
        )
