"""What a measured accuracy is worth: intervals, and whether two models really differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A 95% interval of a fraction."""

    low: float
    high: float


def bootstrap_interval(num_correct: Sequence[int], num_clips: Sequence[int], *, seed: int = 0) -> Interval:
    """95% percentile bootstrap interval of the mean accuracy over splits, resampling the clips of each split.

    Resampling n clips of which a share p is right gives Binomial(n, p) right ones, so it is drawn directly.
    """
    rng = np.random.default_rng(seed)
    shares = [
        rng.binomial(total, correct / total, size=10_000) / total
        for correct, total in zip(num_correct, num_clips, strict=True)
        if total
    ]
    if not shares:
        return Interval(0.0, 1.0)
    low, high = np.quantile(np.mean(shares, axis=0), (0.025, 0.975))
    return Interval(float(low), float(high))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: how probable so uneven a split is, were both models equally good.

    Args:
        only_first: clips that the first model got right and the second wrong.
        only_second: the reverse.
    """
    total = only_first + only_second
    tail = sum(comb(total, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**total))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
