"""A study as a state machine over its record: which trial is next, how one ended, when all is done.

Nothing here knows Ray, so every order of events and every crash can be tried in a test. What a
trial is and how it ended is decided from the record alone; a new ``Study`` over the same record
goes on where the last one died.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.outcome import (
    Outcome,
    PointOutcome,
    failure,
    outcome_of,
    point_outcomes,
    recorded_outcome,
)
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.proposer import Proposal
from orchestrator.search.search_space import Params, apply, check_values
from orchestrator.search.stopping import stopping_rule
from orchestrator.search.stopping.rule import History, thresholds
from orchestrator.storage.attempts import begin_attempt
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.base import KeyExistsError
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError

Wait = Literal["wait"]
_CONTROL_INTERVAL_S = 1.0


class Study:
    """One study. Call from one thread."""

    def __init__(self, config: StudyConfig, record: StudyRecord) -> None:
        self.config = config
        self.record = record
        self.outcomes: dict[int, Outcome] = {}
        self.finished: set[int] = set()  # trials whose result is written
        self._num_proposed = 0
        self._tried: list[Params] = []  # every point, in order
        self._unfinished: dict[int, TrialInfo] = {}
        self._to_resume: deque[int] = deque()
        self._recall()
        self._proposer = proposer_of(config)
        self._rule = stopping_rule(config.search.scheduler)
        self._ended: list[PointOutcome] = []  # what the proposer is told, in order
        self._control, self._control_until = (
            record.control(),
            time.monotonic() + _CONTROL_INTERVAL_S,
        )

    @property
    def unscored(self) -> list[int]:
        """Trials that have trained but whose result is not written."""
        return sorted(self.outcomes.keys() - self.finished)

    @property
    def finished_states(self) -> Counter[str]:
        """How many trials finished in each state."""
        return Counter(self.outcomes[number].state for number in self.finished)

    @property
    def stop_reason(self) -> str | None:
        """Why no further point will be proposed although ``num_trials`` is not reached, if so."""
        number = self._num_proposed
        return None if number >= self.num_trials else self._stop_reason(self._settled(number))

    @property
    def num_trials(self) -> int:
        """How many trials there are to be, as the file and other terminals have said so far."""
        return int(min(self._control.num_trials, self._proposer.max_trials))

    @property
    def has_ended(self) -> bool:
        """Whether a start now would find nothing to do: every trial has its result, and no further
        one is wanted.
        """
        enough = self._num_proposed >= self.num_trials or self.stop_reason is not None
        return enough and not self._unfinished

    def next_trial(self) -> TrialInfo | Wait | None:
        """The trial to run next: an interrupted one, or a new one, which is then on record; None:
        no more.

        ``"wait"``: the next proposal depends on a trial that is still running, or none is left but
        a running one may yet break off.
        """
        if self._to_resume:
            return self._unfinished[self._to_resume.popleft()]
        number, settled = self._num_proposed, self._settled(self._num_proposed)
        self.look_at_control()
        enough = number >= self.num_trials
        if not enough and (settled is None or self._control.paused):
            return "wait"
        if enough or self._stop_reason(settled):
            return "wait" if self._unfinished.keys() - self.outcomes.keys() else None
        return self._propose(number, settled or [])

    def look_at_control(self) -> None:
        """Takes note of what another terminal asked for, at most once a second."""
        if time.monotonic() > self._control_until:
            self._control = self.record.control()
            self._control_until = time.monotonic() + _CONTROL_INTERVAL_S

    def resume(self, number: int) -> None:
        """Takes note that a trial's training broke off and is to go on from its last checkpoint."""
        self._to_resume.append(number)

    def training_ended(self, number: int, error: str | None = None) -> Outcome:
        """Takes note that a trial's training stopped; ``error`` if it failed for good."""
        if number not in self.finished:
            if error:
                # The worker that was given up may still be at work: what it publishes from now on
                # does not count.
                begin_attempt(self.record, number)
            trial, history = self._unfinished[number], self.record.trial(number).history
            outcome = None if error else outcome_of(trial, history, self.config)
            self.outcomes[number] = outcome or failure(
                history, error or "training stopped before its last epoch", self.config
            )
        return self.outcomes[number]

    def finish(self, number: int) -> TrialResult:
        """Writes the result of a trial whose benchmarks are scored (or that failed)."""
        result = self._result(self._unfinished[number], self.outcomes[number])
        try:
            self.record.write_result(result)
        except KeyExistsError:
            result = self.record.trial(number).result or result
        self.finished.add(number)
        del self._unfinished[number]
        return result

    def _recall(self) -> None:
        """Takes from the record what earlier drivers did."""
        trials, results = self.record.trials(), self.record.results()
        self._check_whole({trial.number for trial in trials}, {result.number for result in results})
        for result in results:
            self.finished.add(result.number)
            self.outcomes[result.number] = recorded_outcome(result, self.config)
        for trial in trials:
            place = self.record.keys.trial(trial.number).info
            check_values(place, trial.params, self.config)
            self._note_proposed(trial)
            if trial.number not in self.finished:
                self._recall_unfinished(trial)

    def _check_whole(self, proposed: set[int], finished: set[int]) -> None:
        """Each point depends on those before it: none may be lost."""
        lost = set(range(max(proposed | finished, default=-1) + 1)) - proposed
        if lost:
            raise InputError(
                f"{self.record.store.uri}: {self.record.keys.trial(min(lost)).info} is missing "
                "although later trials are there; restore it from a copy, delete all later trials, "
                "or start the study under another name (--set name=...)"
            )

    def _recall_unfinished(self, trial: TrialInfo) -> None:
        self._unfinished[trial.number] = trial
        outcome = outcome_of(trial, self.record.trial(trial.number).history, self.config)
        if outcome is None:
            self._to_resume.append(trial.number)
        else:
            self.outcomes[trial.number] = outcome

    def _note_proposed(self, trial: TrialInfo) -> None:
        self._num_proposed += 1
        if trial.number % self.config.search.num_repeats == 0:
            self._tried.append(trial.params)

    def _settled(self, number: int) -> list[Outcome] | None:
        """How the trials that trial ``number`` may depend on ended; None while one of them is
        running.
        """
        wanted = range(self._proposer.num_settled(number))
        known = [self.outcomes[n] for n in wanted if n in self.outcomes]
        return known if len(known) == len(wanted) else None

    def _propose(self, number: int, settled: Sequence[Outcome]) -> TrialInfo:
        search = self.config.search
        point, repeat = divmod(number, search.num_repeats)
        proposal = Proposal(self._tried[point]) if repeat else self._proposed(point, settled)
        train = apply(self.config.train, proposal.params)
        trial = TrialInfo(
            number=number,
            params=proposal.params,
            train=train.model_copy(update={"seed": train.seed + repeat}),
            thresholds=thresholds(
                self._rule,
                search.objectives[0],
                number,
                train.epochs,
                [outcome.curve for outcome in settled],
            ),
            parent=proposal.parent,
            stop_epoch=proposal.stop_epoch,
            proposed_at=datetime.now(UTC),
        )
        try:
            self.record.write_trial(trial)
        except KeyExistsError:  # by a driver that lost its lease a moment ago: the same proposal
            trial = self.record.trial(number).info
        self._note_proposed(trial)
        self._unfinished[number] = trial
        return trial

    def _proposed(self, point: int, settled: Sequence[Outcome]) -> Proposal:
        num_repeats = self.config.search.num_repeats
        new = settled[len(self._ended) * num_repeats :]
        self._ended += point_outcomes(new, num_repeats)
        return self._proposer.propose(point, self._tried, self._ended, self._given_point(point))

    def _given_point(self, point: int) -> Mapping[str, Scalar] | None:
        """The parameters that someone wants tried next, from the file or from another terminal."""
        if point < len(self.config.search.first_points):
            return self.config.search.first_points[point]
        for wish in self._control.points:
            check_values(f"{self.record.keys.changes}: points", wish, self.config)
            if not any(wish.items() <= params.items() for params in self._tried):
                return wish
        return None

    def _stop_reason(self, settled: Sequence[Outcome] | None) -> str | None:
        search = self.config.search
        first = (settled or [])[: search.max_first_failures]
        if len(first) == search.max_first_failures and all(
            outcome.state == "failed" for outcome in first
        ):
            return f"the first {len(first)} trials failed; the first one: {first[0].reason}"
        if (
            search.patience is not None
            and _num_since_best(settled or [], self.config) >= search.patience
        ):
            return f"no improvement in {search.patience} trials"
        return self._spent_budget()

    def _spent_budget(self) -> str | None:
        search, resources = self.config.search, self.config.resources
        hours = (datetime.now(UTC) - self.record.info.created_at).total_seconds() / 3600
        if search.max_wall_hours is not None and hours >= search.max_wall_hours:
            return f"{hours:.1f} hours since the study began, allowed are {search.max_wall_hours:g}"
        seconds = sum(outcome.train_s for outcome in self.outcomes.values())
        gpu_hours = seconds / 3600 * resources.max_workers * resources.gpus_per_worker
        if search.max_gpu_hours is not None and gpu_hours >= search.max_gpu_hours:
            return f"{gpu_hours:.1f} GPU-hours spent, allowed are {search.max_gpu_hours:g}"
        return None

    def _result(self, trial: TrialInfo, outcome: Outcome) -> TrialResult:
        recorded = self.record.trial(trial.number)
        scores, history = recorded.scores.read_all(), recorded.history
        best = _best(history, self.config)
        metrics = next((m for m in history if m["epoch"] == best), {})
        return TrialResult(
            number=trial.number,
            state=outcome.state,
            reason=outcome.reason,
            params=trial.params,
            values=outcome.values,
            metrics=metrics,
            history=tuple(history),
            best_epoch=best,
            checkpoint=None
            if best is None
            else recorded.best_checkpoint(self.config.search.objectives[0]),
            benchmarks={key: value for score in scores for key, value in score.metrics.items()},
            protocols=tuple(score.benchmark for score in scores),
            proposed_at=trial.proposed_at,
            finished_at=datetime.now(UTC),
            durations={
                "train_s": outcome.train_s,
                "benchmarks_s": sum(score.duration_s for score in scores),
            },
            code=tuple(dict.fromkeys(attempt.code.name for attempt in recorded.attempts)),
        )


def _best(history: History, config: StudyConfig) -> int | None:
    try:
        return best_epoch(history, config.search.objectives[0])
    except InputError:
        return None


def _num_since_best(settled: Sequence[Outcome], config: StudyConfig) -> int:
    """How many trials ended after the one with the best first objective."""
    gain = config.search.objectives[0].gain
    ranked = [
        (gain(outcome.values[0]), -position)
        for position, outcome in enumerate(settled)
        if outcome.state == "complete" and outcome.values
    ]
    return len(settled) - 1 + max(ranked)[1] if ranked else 0
