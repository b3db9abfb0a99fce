"""Averages of the weights over the last epochs (stochastic weight averaging, as Open-VCLIP takes
it: Weng et al., ICML 2023, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vitaclip.config import TrainConfig
from vitaclip.methods.video_model import VideoModel


class WeightAverage:
    """The mean of what is trained over the epochs that have ended since averaging began. The
    training itself goes on from its own weights.
    """

    def __init__(self, model: VideoModel, config: TrainConfig) -> None:
        share = config.regularizers.average_from
        self._first = None if share is None else max(1, math.ceil(share * config.epochs))
        self._model = model
        self._mean: dict[str, Tensor] = {}

    def _count(self, epoch: int) -> int:
        """How many epochs are in the mean when ``epoch`` has ended."""
        return 0 if self._first is None else max(0, epoch - self._first + 1)

    def add(self, epoch: int) -> None:
        """Takes the weights at the end of an epoch into the mean."""
        count = self._count(epoch)
        if not count:
            return
        with torch.no_grad():
            for name, parameter in self._model.trainable().items():
                mean = self._mean.setdefault(name, parameter.detach().clone())
                mean.lerp_(parameter, 1 / count)

    def restore(self, epoch: int) -> None:
        """Takes the model's weights as the mean, as a checkpoint of ``epoch`` holds it."""
        if self._count(epoch):
            trained = self._model.trainable()
            self._mean = {name: parameter.detach().clone() for name, parameter in trained.items()}

    @contextmanager
    def applied(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the model has the mean weights; gives those of the training, none if they are
        the same.
        """
        trained = self._model.trainable()
        own = {name: trained[name].detach().clone() for name in self._mean}
        _set(trained, self._mean)
        try:
            yield own
        finally:
            _set(trained, own)

    def keep(self) -> None:
        """Leaves the model with the mean weights."""
        _set(self._model.trainable(), self._mean)


def _set(parameters: dict[str, torch.nn.Parameter], weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
