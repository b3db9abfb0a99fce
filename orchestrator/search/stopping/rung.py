"""The trials that have come to one epoch, and which of them are best there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from orchestrator.config import Objective

Values = tuple[float, ...]  # one for each objective


class Rung:
    """One epoch of one bracket. What a trial has reached there never changes."""

    def __init__(self, epoch: int, objectives: Sequence[Objective]) -> None:
        self.epoch = epoch
        self.objectives = objectives
        self.reached: dict[int, Values] = {}  # trial -> objectives at its best epoch so far
        self.passed: set[int] = set()  # trials that went on from here
        self._ranked: list[int] = []

    def ranked(self) -> list[int]:
        """The trials, best first; of equal ones the earlier comes first."""
        if len(self._ranked) != len(self.reached):
            self._ranked = ranked(self.reached, self.objectives)
        return self._ranked

    def others(self, number: int) -> list[float]:
        """The first objective of all trials but one."""
        return [values[0] for trial, values in self.reached.items() if trial != number]


def ranked(values: Mapping[int, Values], objectives: Sequence[Objective]) -> list[int]:
    """Trials by their objectives, best first.

    With several objectives, by non-dominated sorting; within a front, so that the first ones cover
    it evenly (MOASHA: Schmucker et al., Multi-objective asynchronous successive halving, 2021).
    """
    gains = {trial: _gains(values[trial], objectives) for trial in sorted(values)}
    if len(objectives) == 1:
        return sorted(gains, key=lambda trial: -gains[trial][0])
    found: list[int] = []
    for front in _fronts(gains):
        found += _spread({trial: gains[trial] for trial in front})
    return found


def _fronts(gains: Mapping[int, Values]) -> Iterator[list[int]]:
    """The trials that none dominates, then those that none of the others dominates, and so on."""
    trials, points = np.array(list(gains)), np.array(list(gains.values()))
    at_least = np.all(points[:, None] >= points[None], axis=2)
    better = np.any(points[:, None] > points[None], axis=2)
    dominates: np.ndarray = at_least & better
    while len(trials):
        is_first = ~np.any(dominates, axis=0)
        yield trials[is_first].tolist()
        trials, dominates = trials[~is_first], dominates[np.ix_(~is_first, ~is_first)]


def _gains(values: Values, objectives: Sequence[Objective]) -> Values:
    """Larger is better in each; what is not a number is worst."""
    pairs = zip(objectives, values, strict=True)
    return tuple(
        -math.inf if math.isnan(value) else objective.gain(value) for objective, value in pairs
    )


def _spread(front: Mapping[int, Values]) -> list[int]:
    """The trials of a front: the best in the first objective, then whichever lies farthest from
    those before it.
    """
    places = _scaled(front)
    left = sorted(front, key=lambda trial: (-front[trial][0], trial))
    found = [left.pop(0)]
    while left:
        distances = [min(math.dist(places[t], places[other]) for other in found) for t in left]
        found.append(left.pop(distances.index(max(distances))))
    return found


def _scaled(front: Mapping[int, Values]) -> dict[int, Values]:
    """Each objective from 0 to 1 over the front."""
    columns = [
        [value for value in column if math.isfinite(value)] or [0.0]
        for column in zip(*front.values(), strict=True)
    ]
    lows = [min(column) for column in columns]
    spans = [(max(column) - min(column)) or 1.0 for column in columns]
    return {
        trial: tuple(
            (max(value, low) - low) / span
            for value, low, span in zip(values, lows, spans, strict=True)
        )
        for trial, values in front.items()
    }
