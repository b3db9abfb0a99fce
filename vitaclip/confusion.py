"""Which classes are taken for which. C is the number of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def confusion_matrix(
    labels: Sequence[int], predicted: Sequence[int], num_classes: int
) -> np.ndarray:
    """``[C, C]`` counts; rows are true classes, columns predicted ones."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (list(labels), list(predicted)), 1)
    return counts


def per_class_top1(classes: Sequence[str], confusion_CC: np.ndarray) -> dict[str, float]:
    """Accuracy of each class that has clips."""
    totals = confusion_CC.sum(axis=1)
    return {
        name: float(confusion_CC[i, i] / totals[i]) for i, name in enumerate(classes) if totals[i]
    }
