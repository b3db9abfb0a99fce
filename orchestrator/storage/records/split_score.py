"""The part of a score that one split has: how well a model did on each clip."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from vitaclip.config import Config
from vitaclip.confusion import confusion_matrix, per_class_top1
from vitaclip.data.identity import DataIdentity


class SplitScore(Config):
    """One split's score. ``clips`` are positions in the manifest; ``files``, ``labels``, ``ranked``
    belong to them.
    """

    split: str
    data: DataIdentity
    top1: float
    top5: float
    num_broken: int = Field(description="clips that could not be read; they are left out")
    num_missing: int = Field(
        0, description="clips that are annotated but have no file; they are left out"
    )
    classes: tuple[str, ...]
    clips: tuple[int, ...]
    files: tuple[int, ...] = Field(
        description="numbers of the clips' files, equal in every split that holds them"
    )
    labels: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...] = Field(
        description="the five most probable classes, best first"
    )

    @property
    def correct(self) -> dict[int, bool]:
        """Clip -> whether the most probable class was right."""
        rows = zip(self.clips, self.labels, self.ranked, strict=True)
        return {clip: label == best[0] for clip, label, best in rows}

    @property
    def confusion(self) -> np.ndarray:
        """``[C, C]`` counts; rows are true classes, columns predicted ones."""
        return confusion_matrix(self.labels, [best[0] for best in self.ranked], len(self.classes))

    @property
    def per_class_top1(self) -> dict[str, float]:
        """Accuracy of each class that has clips."""
        return per_class_top1(self.classes, self.confusion)
