"""Stopping hopeless trials early, as a pure function of earlier trials.

A trial gets its bar when it is proposed: the values it must have reached after certain epochs to go
on, computed from the trials up to ``number - search.lag``. Unlike Tune's schedulers, which compare
with whatever happens to have been reported, this gives the same decisions in every run of a seeded
study and after every crash, and no trial's actor is killed from outside (the way on which Ray leaks
workers): the trial ends itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from orchestrator.config import Objective, SchedulerConfig

History = Sequence[dict[str, float]]
# the first objective after epochs 1, 2, ...; NaN where it was not reported
Curve = tuple[float, ...]

MIN_TRIALS_FOR_MEDIAN = 3


def bar(
    config: SchedulerConfig,
    objective: Objective,
    number: int,
    num_epochs: int,
    earlier: Sequence[Curve],
) -> dict[int, float]:
    """Epoch -> the objective that trial ``number`` must have reached by then to go on.

    ``asha``: at the rungs ``grace_period * reduction_factor ** k`` a trial must be among the best
    1/reduction_factor of those that came as far (Li et al. 2020). ``hyperband``: the same, with
    trials taking turns at a later first rung. ``median``: at every epoch not below the median of
    the others (Golovin et al. 2017).
    """
    values = {}
    for epoch in _judged_epochs(config, number, num_epochs):
        reached = [
            best for one in earlier if (best := _best_until(one, epoch, objective)) is not None
        ]
        value = (
            _median(reached)
            if config.name == "median"
            else _cut(reached, objective, config.reduction_factor)
        )
        if value is not None:
            values[epoch] = value
    return values


def falls_short(history: History, bar: dict[int, float], objective: Objective) -> bool:
    """Whether the trial must stop after its last epoch."""
    epoch = int(history[-1]["epoch"])
    best = _best_until(curve(history, objective), epoch, objective)
    if epoch not in bar or best is None:
        return False
    return best < bar[epoch] if objective.mode == "max" else best > bar[epoch]


def curve(history: History, objective: Objective) -> Curve:
    """The objective alone."""
    return tuple(metrics.get(objective.metric, math.nan) for metrics in history)


def _best_until(curve: Curve, epoch: int, objective: Objective) -> float | None:
    """The best objective up to ``epoch``; None if the trial never came so far."""
    values = (
        [value for value in curve[:epoch] if not math.isnan(value)] if len(curve) >= epoch else []
    )
    return (max if objective.mode == "max" else min)(values, default=None)


def _judged_epochs(config: SchedulerConfig, number: int, num_epochs: int) -> list[int]:
    if config.name in ("none", "pbt"):
        return []
    if config.name == "median":
        return list(range(config.grace_period, num_epochs))
    rungs = [config.grace_period]
    while rungs[-1] * config.reduction_factor < num_epochs:
        rungs.append(rungs[-1] * config.reduction_factor)
    skipped = number % len(rungs) if config.name == "hyperband" else 0
    return [rung for rung in rungs[skipped:] if rung < num_epochs]


def _median(values: list[float]) -> float | None:
    return median(values) if len(values) >= MIN_TRIALS_FOR_MEDIAN else None


def _cut(values: list[float], objective: Objective, factor: int) -> float | None:
    if len(values) < factor:
        return None
    ranked = sorted(values, reverse=objective.mode == "max")
    return ranked[len(ranked) // factor - 1]
