"""How a trial's training ended, decided from its history alone; and how a point ended, over its
repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from orchestrator.config import StudyConfig
from orchestrator.search.stopping.rule import Curve, History, curve, explain_miss, misses_threshold
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.keys import TrialKeys
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from vitaclip.checkpoint_info import seconds_of
from vitaclip.errors import InputError

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial's training ended: as much as later trials depend on. The rest is in the record
    only.
    """

    state: State
    reason: str | None
    # the objectives at the best epoch; None: not all were reported
    values: tuple[float, ...] | None
    curve: Curve
    train_s: float

    @property
    def as_point(self) -> PointOutcome:
        """What a proposer is told of it."""
        match self.state:
            case "complete" if self.values:
                return PointOutcome("complete", values=self.values)
            case "pruned":
                return PointOutcome("pruned", curve=self.curve)
            case _:
                return PointOutcome("failed")


@dataclass(frozen=True)
class PointOutcome:
    """How a point ended, or that it has not: what proposers are told."""

    state: State | Literal["running"]
    values: tuple[float, ...] = ()  # complete: one for each objective
    curve: Curve = ()  # pruned: the first objective after each epoch


def outcome_of(trial: TrialInfo, history: History, config: StudyConfig) -> Outcome | None:
    """How a training with this history ended; None if it is to go on."""
    if not history:
        return None
    ended = finished_training(history, config)
    if ended.state == "failed" or int(history[-1]["epoch"]) >= trial.last_epoch:
        return ended
    objective, thresholds = config.search.objectives[0], trial.thresholds
    if misses_threshold(history, thresholds, objective):
        rule_name = config.search.scheduler.name
        reason = explain_miss(rule_name, history, thresholds, objective)
        return replace(ended, state="pruned", reason=reason)
    return None


def finished_training(history: History, config: StudyConfig) -> Outcome:
    """The outcome of a trial whose training is over: complete, or failed if it lacks an
    objective.
    """
    try:
        return _outcome("complete", history, None, config)
    except (InputError, KeyError) as error:
        return failure(history, f"objective not reported: {error}", config)


def failure(history: History, reason: str, config: StudyConfig) -> Outcome:
    """The outcome of a trial that failed after these epochs."""
    return _outcome("failed", history, reason, config)


def pruning(history: History, reason: str, config: StudyConfig) -> Outcome:
    """The outcome of a trial that was stopped after these epochs."""
    ended = finished_training(history, config)
    return ended if ended.state == "failed" else replace(ended, state="pruned", reason=reason)


def recorded_outcome(result: TrialResult, config: StudyConfig) -> Outcome:
    """The outcome that a result tells of. Raises InputError if its history cannot be used."""
    try:
        return _outcome(result.state, result.history, result.reason, config)
    except (InputError, KeyError) as error:
        raise InputError(
            f"{TrialKeys(config.name, result.number).result} has no usable history ({error}); "
            "delete it: the next start of the sweep writes it again"
        ) from None


def train_seconds(history: History) -> float:
    """How long these epochs took."""
    return sum(map(seconds_of, history))


def point_outcome(repeats: Sequence[PointOutcome], num_repeats: int) -> PointOutcome:
    """How a point stands, from its trials so far: it runs until all its repeats have ended."""
    if len(repeats) < num_repeats or any(repeat.state == "running" for repeat in repeats):
        return PointOutcome("running")
    complete = [repeat.values for repeat in repeats if repeat.state == "complete"]
    if complete:
        return PointOutcome("complete", values=tuple(map(fmean, zip(*complete, strict=True))))
    pruned = [repeat for repeat in repeats if repeat.state == "pruned"]
    return pruned[0] if pruned else PointOutcome("failed")


def _outcome(state: State, history: History, reason: str | None, config: StudyConfig) -> Outcome:
    return Outcome(
        state,
        reason,
        None if state == "failed" else _values(history, config),
        curve(history, config.search.objectives[0]),
        train_seconds(history),
    )


def _values(history: History, config: StudyConfig) -> tuple[float, ...]:
    """The objectives at the best epoch of the first one."""
    objectives = config.search.objectives
    best = best_epoch(history, objectives[0])
    metrics = next(m for m in history if m["epoch"] == best)
    return tuple(metrics[objective.metric] for objective in objectives)
