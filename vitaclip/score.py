"""What a model said of clips, and the metrics that are made of it.

Configs ask for the metrics' names, so numpy is imported when one is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What a model said of one clip."""

    clip: int  # position in the manifest
    label: int
    ranked: tuple[int, ...]  # the five most probable classes, best first
    loss: float  # -log of the probability of the true class


@dataclass(frozen=True)
class Score:
    """Accuracy of one model on one set of clips; fractions in [0, 1]."""

    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]  # in manifest order
    num_broken: int  # clips that could not be read; they are left out

    @property
    def num_clips(self) -> int:
        return len(self.predictions)

    @property
    def top1(self) -> float:
        return _mean([p.ranked[0] == p.label for p in self.predictions])

    @property
    def top5(self) -> float:
        return _mean([p.label in p.ranked for p in self.predictions])

    @property
    def loss(self) -> float:
        return _mean([p.loss for p in self.predictions])

    @property
    def confusion(self) -> np.ndarray:
        """``[C, C]`` counts; rows are true classes, columns predicted ones."""
        from vitaclip.confusion import confusion_matrix

        labels = [p.label for p in self.predictions]
        return confusion_matrix(labels, [p.ranked[0] for p in self.predictions], len(self.classes))

    @property
    def per_class_top1(self) -> dict[str, float]:
        """Accuracy of each class that has clips."""
        from vitaclip.confusion import per_class_top1

        return per_class_top1(self.classes, self.confusion)


# What every epoch reports of the validation split. A new line is a new metric of epochs, which a
# search may optimize.
VALIDATION_METRICS: Mapping[str, Callable[[Score], float]] = {
    "val/top1": lambda score: score.top1,
    "val/top5": lambda score: score.top5,
    "val/loss": lambda score: score.loss,
    # left out: one clip less shifts every figure beside it
    "val/broken": lambda score: score.num_broken,
}
# And of the development split, where there is one.
DEVELOPMENT_METRICS: Mapping[str, Callable[[Score], float]] = {
    "development/top1": lambda score: score.top1,
    "development/top5": lambda score: score.top5,
}


def _mean(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.mean(values)) if values else float("nan")
