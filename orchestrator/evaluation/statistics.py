"""What a measured accuracy is worth: intervals, and whether two models really differ.

Splits of one benchmark may share clips (Kinetics-600's draws of 160 of 220 classes, HMDB51's three
lists). A clip that stands in three splits is one observation, so everything here counts clips by
their file, over all splits at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, betaincinv

from orchestrator.storage.records.split_score import SplitScore

_LEVEL = 0.95
_NUM_FLIPS = 20_000


@dataclass(frozen=True)
class Interval:
    """A 95% interval of a fraction."""

    low: float
    high: float


@dataclass(frozen=True)
class Outcomes:
    """What one model did on one split's N clips, all arrays ``[N]``."""

    files: npt.NDArray[np.int64]  # which clip it is, the same number in every split
    labels: npt.NDArray[np.str_]  # its class's name
    right: npt.NDArray[np.bool_]  # whether the most probable class was the true one


def outcomes(split: SplitScore) -> Outcomes:
    """What a split's score tells of every clip."""
    return Outcomes(
        files=np.asarray(split.files, dtype=np.int64),
        labels=np.asarray([split.classes[label] for label in split.labels]),
        right=np.asarray(
            [label == best[0] for label, best in zip(split.labels, split.ranked, strict=True)]
        ),
    )


def accuracy_interval(splits: Sequence[Outcomes]) -> Interval:
    """95% Clopper-Pearson interval of the mean accuracy over splits, on the effective number of
    clips.

    With weight ``w_i`` of clip i in the mean, over all splits, this number is ``1 / sum(w_i ** 2)``
    (Kish), made smaller where splits are draws of classes. The exact interval does not degenerate
    near 0 and 1 (Korn and Graubard, Confidence intervals for proportions with small expected number
    of positive counts, 1998).
    """
    splits = [split for split in splits if len(split.files)]
    if not splits:
        return Interval(0.0, 1.0)
    weights = np.concatenate(
        [np.full(len(s.files), 1 / (len(splits) * len(s.files))) for s in splits]
    )
    share = float(weights @ np.concatenate([s.right for s in splits]))
    _, places = np.unique(np.concatenate([s.files for s in splits]), return_inverse=True)
    number = 1 / float((np.bincount(places, weights) ** 2).sum())
    if 0 < share < 1:
        spread = share * (1 - share)
        number = spread / (spread / number + _class_draw_variance(splits))
    return _clopper_pearson(share * number, number)


def _clopper_pearson(num_right: float, number: float) -> Interval:
    tail, num_wrong = (1 - _LEVEL) / 2, number - num_right
    # Sums of weights are a rounding error away from whole numbers.
    low = betaincinv(num_right, num_wrong + 1, tail) if num_right > 1e-9 else 0.0
    high = betaincinv(num_right + 1, num_wrong, 1 - tail) if num_wrong > 1e-9 else 1.0
    return Interval(float(low), float(high))


def _class_draw_variance(splits: Sequence[Outcomes]) -> float:
    """Variance of the mean over splits that comes from which classes were drawn; 0 where all splits
    have the same.

    A class that was drawn more often than others weighs more, and classes differ in how hard they
    are.
    """
    labels = np.concatenate([s.labels for s in splits])
    names, places = np.unique(labels, return_inverse=True)
    by_split = np.split(places, np.cumsum([len(s.labels) for s in splits])[:-1])
    shares = np.stack([np.bincount(part, minlength=len(names)) / len(part) for part in by_split])
    num_draws = (shares > 0).sum(axis=0)
    if len(names) < 2 or (num_draws == len(splits)).all():
        return 0.0
    counts = np.bincount(places)
    accuracies = np.bincount(places, np.concatenate([s.right for s in splits])) / counts
    within = accuracies * (1 - accuracies) / np.maximum(counts / num_draws - 1, 1)
    between = max(0.0, float(np.var(accuracies, ddof=1) - within.mean()))
    surplus = (num_draws - num_draws.mean()) * shares.sum(axis=0) / num_draws / len(splits)
    return between * float((surplus**2).sum())


def harmonic_mean(values: Sequence[float]) -> float:
    """0 where a value is 0."""
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0


def harmonic_mean_gradient(values: Sequence[float]) -> list[float]:
    """How fast the harmonic mean grows with each of its values; 0 for a value of 0."""
    mean = harmonic_mean(values)
    return [mean**2 / (len(values) * value**2) if value else 0.0 for value in values]


def harmonic_mean_interval(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """95% interval of the harmonic mean of independent accuracies, from their own intervals.

    The reciprocal of a harmonic mean is the mean of reciprocals. The limits of a sum are as far
    from it as the root of the summed squares of its parts' distances to theirs: MOVER (Zou and
    Donner, Construction of confidence intervals about effect measures, 2008). Beside an accuracy
    of 0 all accuracies are taken at their limits, which is wider.
    """
    if not all(values):
        return Interval(0.0, harmonic_mean([interval.high for interval in intervals]))
    parts = list(zip(values, intervals, strict=True))
    total = sum(1 / value for value in values)
    below = math.hypot(*(1 / value - 1 / interval.high for value, interval in parts))
    high = len(values) / (total - below)
    if not all(interval.low for interval in intervals):
        return Interval(0.0, high)
    above = math.hypot(*(1 / interval.low - 1 / value for value, interval in parts))
    return Interval(len(values) / (total + above), high)


def clip_differences(
    first: Sequence[Outcomes], second: Sequence[Outcomes], weights: Sequence[float]
) -> npt.NDArray[np.float64]:
    """How much each clip adds to the difference of two models' weighted sums of accuracies.

    Args:
        first: what one model did on each split.
        second: what the other did on the same clips.
        weights: of the splits; the same for two models, and for them exchanged.
    """
    files = np.concatenate([s.files for s in first])
    added = np.concatenate(
        [
            (a.right.astype(float) - b.right) * (weight / len(a.files))
            for a, b, weight in zip(first, second, weights, strict=True)
        ]
    )
    _, places = np.unique(files, return_inverse=True)
    return np.asarray(np.bincount(places, added), dtype=np.float64)


def paired_p_value(differences: npt.NDArray[np.float64]) -> float:
    """How probable so large a difference is, were both models equally good on every clip:
    two-sided, by sign flips.

    Where all clips weigh the same this is McNemar's exact test. Otherwise signs are drawn 20,000
    times, seeded.
    """
    sizes, counts = np.unique(
        np.abs(differences[np.abs(differences) > 1e-12]).round(12), return_counts=True
    )
    if len(sizes) <= 1:
        return mcnemar_p_value(int((differences > 1e-12).sum()), int((differences < -1e-12).sum()))
    rng = np.random.default_rng(0)
    flipped = sum(
        size * (2 * rng.binomial(count, 0.5, _NUM_FLIPS) - count)
        for size, count in zip(sizes, counts, strict=True)
    )
    as_large = np.abs(flipped) >= abs(differences.sum()) - 1e-12
    return float((1 + as_large.sum()) / (1 + _NUM_FLIPS))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test: how probable so uneven a split is, were both models equally
    good.

    Args:
        only_first: clips that the first model got right and the second wrong.
        only_second: the reverse.
    """
    # Both tails of a fair coin's throws; an even split is in both.
    tail = bdtr(min(only_first, only_second), only_first + only_second, 0.5)
    return min(1.0, 2 * float(tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values made larger so that, of all of them together, a false difference is called in 5% of
    cases.

    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
