"""Which trial is best: the order of the tables, and the Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config import StudyConfig
from orchestrator.storage.records.trial import TrialResult


def pareto_set(config: StudyConfig, results: Sequence[TrialResult]) -> set[int]:
    """Numbers of the complete trials that no other one beats in every objective."""
    objectives = config.search.objectives
    gains = {
        result.number: tuple(
            objective.gain(value)
            for objective, value in zip(objectives, result.values, strict=True)
        )
        for result in results
        if result.state == "complete" and result.values
    }
    return set(pareto_front(gains))


def pareto_front(points: Mapping[int, tuple[float, ...]]) -> list[int]:
    """The keys of the points that no other point beats in every coordinate, from left to right.
    More is better in each coordinate.
    """
    front = [
        key
        for key, point in points.items()
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )
    ]
    return sorted(front, key=lambda key: points[key])


def best_first(config: StudyConfig, results: Sequence[TrialResult]) -> list[TrialResult]:
    """By the first objective: complete trials, then pruned ones, then failed ones."""
    return sorted(
        results, key=lambda result: (*rank(config, result.state, result.values), result.number)
    )


def rank(config: StudyConfig, state: str, values: Sequence[float] | None) -> tuple[int, float]:
    """Orders trials: smaller is better."""
    gain = config.search.objectives[0].gain(values[0]) if values else 0.0
    return ("complete", "pruned", "failed").index(state), -gain
