"""Points of the search space over their seeds: mean and standard deviation of what trials
reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from orchestrator.config import Scalar, StudyConfig
from orchestrator.storage.records.trial import TrialResult


@dataclass(frozen=True)
class Spread:
    """Of one measure over the seeds of a point. A single seed deviates by nothing."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Point:
    """A point, and for each measure what its seeds reached."""

    number: int
    params: Mapping[str, Scalar]
    num_seeds: int  # whose trials are complete
    spreads: Mapping[str, Spread]  # by measure; without those that no trial has


def measures(config: StudyConfig) -> list[str]:
    """What a point is measured by: each objective's metric, and each benchmark, whose top-1
    counts.
    """
    objectives = [objective.metric for objective in config.search.objectives]
    return objectives + [benchmark.name for benchmark in config.benchmarks]


def points_over_seeds(config: StudyConfig, results: Sequence[TrialResult]) -> list[Point]:
    """The points of complete trials, best mean of the first objective first."""
    trials: dict[int, list[TrialResult]] = defaultdict(list)
    for result in results:
        if result.state == "complete" and result.values:
            trials[result.number // config.search.num_repeats].append(result)
    objective = config.search.objectives[0]
    return sorted(
        (_point(config, number, group) for number, group in trials.items()),
        key=lambda point: (-objective.gain(point.spreads[objective.metric].mean), point.number),
    )


def _point(config: StudyConfig, number: int, trials: list[TrialResult]) -> Point:
    measured: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        top1 = (trial.benchmarks.get(f"{benchmark.name}/top1") for benchmark in config.benchmarks)
        for name, value in zip(measures(config), (*(trial.values or ()), *top1), strict=True):
            if value is not None:
                measured[name].append(value)
    spreads = {
        name: Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)
        for name, values in measured.items()
    }
    return Point(number, trials[0].params, len(trials), spreads)
