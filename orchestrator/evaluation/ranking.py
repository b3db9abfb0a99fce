"""Which trial is best: the order of the tables, and the Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import StudyConfig
from orchestrator.storage.records.trial import TrialResult


def pareto_set(config: StudyConfig, results: Sequence[TrialResult]) -> set[int]:
    """Numbers of the complete trials that no other one beats in every objective."""
    signs = [1 if objective.mode == "max" else -1 for objective in config.search.objectives]
    points = {
        result.number: tuple(sign * value for sign, value in zip(signs, result.values, strict=True))
        for result in results
        if result.state == "complete" and result.values
    }
    return {
        number
        for number, point in points.items()
        if not any(
            other != point and all(a >= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )
    }


def best_first(config: StudyConfig, results: Sequence[TrialResult]) -> list[TrialResult]:
    """By the first objective: complete trials, then pruned ones, then failed ones."""
    return sorted(
        results, key=lambda result: (*rank(config, result.state, result.values), result.number)
    )


def rank(config: StudyConfig, state: str, values: Sequence[float] | None) -> tuple[int, float]:
    """Orders trials: smaller is better."""
    sign = -1 if config.search.objectives[0].mode == "max" else 1
    return ("complete", "pruned", "failed").index(state), sign * values[0] if values else 0.0
