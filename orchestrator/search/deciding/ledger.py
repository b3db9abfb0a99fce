"""What an asynchronous study knows, as a fold over its journal: observations and decisions.

The running study and its replay both use it, so a decision is derived again from exactly what it
was taken from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.config import StudyConfig
from orchestrator.search.outcome import PointOutcome, point_outcome
from orchestrator.search.search_space import Params, apply
from orchestrator.search.stopping import stopping_rule
from orchestrator.search.stopping.rule import Curve
from orchestrator.search.stopping.rung import Rung, Values
from orchestrator.storage.records.decision import (
    Decision,
    Failure,
    GaveUp,
    Observation,
    Proposed,
    Report,
    Verdict,
)

Status = Literal["running", "paused", "complete", "pruned", "failed"]


@dataclass
class TrialState:
    """One trial, as far as decisions depend on it."""

    params: Params
    last_epoch: int
    judged_epochs: tuple[int, ...]
    bracket: int
    status: Status = "running"
    reason: str | None = None
    values: dict[int, Values] = field(default_factory=dict)  # epoch -> objectives
    verdicts: dict[int, str] = field(default_factory=dict)  # epoch -> the latest kind

    @property
    def epoch(self) -> int:
        """The last one reported; 0: none."""
        return max(self.values, default=0)

    @property
    def curve(self) -> Curve:
        """The first objective after epochs 1, 2, ...; NaN where it was not reported."""
        gap = (math.nan,)
        return tuple(self.values.get(epoch, gap)[0] for epoch in range(1, self.epoch + 1))

    @property
    def is_due(self) -> bool:
        """Whether its last epoch is to be judged, and has not been."""
        return (
            self.status == "running"
            and self.epoch in self.judged_epochs
            and self.epoch not in self.verdicts
        )


class Ledger:
    """Every trial of one study, and the rungs they have come to."""

    def __init__(self, config: StudyConfig) -> None:
        self.trials: list[TrialState] = []
        self.ended: list[int] = []  # in the order in which it was learned
        self._config = config
        self._objectives = config.search.objectives
        self._rule = stopping_rule(config.search.scheduler)
        self._rungs: dict[tuple[int, int], Rung] = {}
        self._points: list[PointOutcome] = []  # of each trial

    def see(self, observation: Observation) -> None:
        """Takes note of what happened. What is known already, or came too late, changes nothing."""
        trial = self.trials[observation.trial]
        if trial.status not in ("running", "paused"):
            return
        if isinstance(observation, Failure):
            self._end(observation.trial, "failed", observation.reason)
        elif observation.epoch not in trial.values:
            self._report(observation)

    def apply(self, decision: Decision) -> None:
        """Takes note of what was decided."""
        if isinstance(decision, Proposed):
            self.trials.append(self._proposed(decision))
            self._points.append(PointOutcome("running"))
        elif isinstance(decision, GaveUp):
            for number in decision.trials:
                self._end(number, "pruned", self._why_given_up(number))
        else:
            self._judged(decision)

    def judge(self, number: int) -> Verdict:
        """What a trial does after its last epoch, which is due to be judged."""
        trial = self.trials[number]
        kind, why = self._rule.judge(number, self._rung(trial, trial.epoch))
        return Verdict(kind=kind, trial=number, epoch=trial.epoch, why=why)

    def promotion(self) -> Verdict | None:
        """The paused trial that goes on next: the best one at the highest rung that has any."""
        for rung in self._highest_first():
            for number in self._rule.promotable(rung):
                if self._is_paused_at(number, rung.epoch):
                    rank = rung.ranked().index(number) + 1
                    why = f"rank {rank} of {len(rung.reached)} after epoch {rung.epoch}"
                    return Verdict(kind="promote", trial=number, epoch=rung.epoch, why=why)
        return None

    def last_promotion(self) -> Verdict | None:
        """The best trial at the highest rung, if none has trained to its end.

        It is asked for when nothing else is left to do: a search is to end with a whole training.
        """
        if any(trial.status == "complete" for trial in self.trials):
            return None
        for rung in self._highest_first():
            for number in rung.ranked():
                if self._is_paused_at(number, rung.epoch):
                    why = f"the best after epoch {rung.epoch}, and no trial has trained to its end"
                    return Verdict(kind="promote", trial=number, epoch=rung.epoch, why=why)
        return None

    def giving_up(self) -> GaveUp | None:
        """The end of all paused trials; None: there is none."""
        paused = tuple(n for n, trial in enumerate(self.trials) if trial.status == "paused")
        return GaveUp(trials=paused) if paused else None

    def points(self) -> list[PointOutcome]:
        """How every point stands. One that is paused counts as pruned until it is promoted."""
        repeats = self._config.search.num_repeats
        if repeats == 1:
            return list(self._points)
        starts = range(0, len(self._points), repeats)
        return [point_outcome(self._points[start : start + repeats], repeats) for start in starts]

    def tried(self) -> list[Params]:
        """The parameters of every point, in order."""
        return [trial.params for trial in self.trials[:: self._config.search.num_repeats]]

    def _proposed(self, decision: Proposed) -> TrialState:
        epochs = apply(self._config.train, decision.params).epochs
        return TrialState(
            params=decision.params,
            last_epoch=epochs if decision.stop_epoch is None else decision.stop_epoch,
            judged_epochs=tuple(self._rule.judged_epochs(decision.trial, epochs)),
            bracket=self._rule.bracket(decision.trial, epochs),
        )

    def _report(self, report: Report) -> None:
        trial = self.trials[report.trial]
        trial.values[report.epoch] = tuple(
            math.nan if value is None else value for value in report.values
        )
        if report.epoch in trial.judged_epochs:
            self._rung(trial, report.epoch).reached[report.trial] = self._best(trial)
        if report.epoch >= trial.last_epoch:
            self._end(report.trial, "complete", None)

    def _judged(self, verdict: Verdict) -> None:
        trial = self.trials[verdict.trial]
        trial.verdicts[verdict.epoch] = verdict.kind
        if verdict.kind == "stop":
            self._end(verdict.trial, "pruned", self._why(verdict.why))
        elif verdict.kind == "pause":
            self._set(verdict.trial, "paused", self._why(verdict.why))
        else:
            self._set(verdict.trial, "running", None)
            self._rung(trial, verdict.epoch).passed.add(verdict.trial)

    def _set(self, number: int, status: Status, reason: str | None) -> None:
        trial = self.trials[number]
        trial.status, trial.reason = status, reason
        self._points[number] = self._point(trial)

    def _end(self, number: int, status: Status, reason: str | None) -> None:
        self._set(number, status, reason)
        self.ended.append(number)

    def _why(self, why: str) -> str:
        return f"{self._config.search.scheduler.name}: {why}"

    def _why_given_up(self, number: int) -> str:
        rung = self._rung(self.trials[number], self.trials[number].epoch)
        rank = rung.ranked().index(number) + 1
        return self._why(
            f"rank {rank} of {len(rung.reached)} after epoch {rung.epoch} when the search ended"
        )

    def _highest_first(self) -> list[Rung]:
        return sorted(self._rungs.values(), key=lambda rung: -rung.epoch)

    def _rung(self, trial: TrialState, epoch: int) -> Rung:
        place = (trial.bracket, epoch)
        return self._rungs.setdefault(place, Rung(epoch, self._objectives))

    def _is_paused_at(self, number: int, epoch: int) -> bool:
        trial = self.trials[number]
        return trial.status == "paused" and trial.epoch == epoch

    def _best(self, trial: TrialState) -> Values:
        """The objectives at the epoch that is best in the first one."""
        gain = self._objectives[0].gain
        known = [values for values in trial.values.values() if not math.isnan(values[0])]
        return max(known, key=lambda v: gain(v[0]), default=(math.nan,) * len(self._objectives))

    def _point(self, trial: TrialState) -> PointOutcome:
        match trial.status:
            case "running":
                return PointOutcome("running")
            case "complete":
                values = self._best(trial)
                missing = any(map(math.isnan, values))
                return PointOutcome("failed") if missing else PointOutcome("complete", values)
            case "failed":
                return PointOutcome("failed")
            case "paused" | "pruned":
                return PointOutcome("pruned", curve=trial.curve)
