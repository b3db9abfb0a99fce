"""A study as a state machine over its record: which trial is next, how one ended, when all is done.

Nothing here knows Ray, so every order of events and every crash can be tried in a test. What a
trial is and how it ended is decided from the record alone; a new ``Study`` over the same record
goes on where the last one died. :mod:`orchestrator.search.deciding` takes the decisions.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.deciding import decider_of
from orchestrator.search.outcome import Outcome, failure, recorded_outcome, train_seconds
from orchestrator.search.search_space import check_values
from orchestrator.search.stopping.rule import History
from orchestrator.storage.attempts import begin_attempt
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.records.decision import VerdictKind
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
        self._unfinished: dict[int, TrialInfo] = {}
        self._to_resume: deque[int] = deque()
        self._pausing: set[int] = set()  # told to pause; their workers may not have ended yet
        self._train_s: dict[int, float] = {}  # of trials that have paused, so far
        self._decider = decider_of(config, record, self.outcomes)
        self._recall()
        self._control, self._control_until = (
            record.control(),
            time.monotonic() + _CONTROL_INTERVAL_S,
        )

    @property
    def unscored(self) -> list[int]:
        """Trials that have trained but whose result is not written."""
        return sorted(self.outcomes.keys() - self.finished)

    @property
    def unfinished(self) -> list[TrialInfo]:
        """Trials that were proposed and have no result, by number."""
        return [self._unfinished[number] for number in sorted(self._unfinished)]

    @property
    def training(self) -> list[TrialInfo]:
        """Trials that are being trained, or wait for a slot to go on."""
        resting = self.outcomes.keys() | self._decider.paused
        return [trial for trial in self.unfinished if trial.number not in resting]

    @property
    def paused(self) -> list[int]:
        """Trials that do not train, but may be promoted."""
        return sorted(self._decider.paused - self.outcomes.keys())

    @property
    def num_proposed(self) -> int:
        """How many trials have been proposed: the number of the next one."""
        return self._num_proposed

    @property
    def awaited(self) -> list[int]:
        """The trials that must end before the next one can be proposed."""
        return self._decider.awaited(self._num_proposed)

    @property
    def is_paused(self) -> bool:
        """Whether another terminal asked for no further trial, for now."""
        return self._control.paused

    @property
    def finished_states(self) -> Counter[str]:
        """How many trials finished in each state."""
        return Counter(self.outcomes[number].state for number in self.finished)

    @property
    def stop_reason(self) -> str | None:
        """Why no further point will be proposed although ``num_trials`` is not reached, if so."""
        number = self._num_proposed
        if number >= self.num_trials:
            return None
        return self._stop_reason(self._decider.known_outcomes(number))

    @property
    def num_trials(self) -> int:
        """How many trials there are to be, as the file and other terminals have said so far."""
        return int(min(self._control.num_trials, self._decider.max_trials))

    @property
    def has_ended(self) -> bool:
        """Whether a start now would find nothing to do: every trial has its result, and no further
        one is wanted.
        """
        enough = self._num_proposed >= self.num_trials or self.stop_reason is not None
        return enough and not self._unfinished

    def take_over(self) -> None:
        """Finishes what the last driver may have left half done. The driver's first call."""
        if (trial := self._decider.take_over()) and trial.number >= self._num_proposed:
            self._note_proposed(trial)
            self._to_resume.append(trial.number)
        left, self._to_resume = self._to_resume, deque()
        for number in left:
            if not self.resume(number):
                self.training_ended(number)

    def next_trial(self) -> TrialInfo | Wait | None:
        """The trial to run next: an interrupted one, one that was paused, or a new one, which is
        then on record; None: no more.

        ``"wait"``: the next proposal depends on a trial that is still running, or none is left but
        a running one may yet break off.
        """
        if self._to_resume:
            return self._unfinished[self._to_resume.popleft()]
        number = self._num_proposed
        self.look_at_control()
        enough, known = number >= self.num_trials, self._decider.known_outcomes(number)
        if self._control.paused and (not enough or self._decider.paused):
            return "wait"
        stops = self._stop_reason(known) is not None
        is_last = enough and not self._is_running
        if not stops and (promoted := self._promote(is_last)) is not None:
            return promoted
        if enough or stops:
            return "wait" if self._is_running else None
        return "wait" if known is None else self._propose(number)

    def look_at_control(self) -> None:
        """Takes note of what another terminal asked for, at most once a second."""
        if time.monotonic() > self._control_until:
            self._control = self.record.control()
            self._control_until = time.monotonic() + _CONTROL_INTERVAL_S

    def epoch_ended(self, number: int, metrics: dict[str, float]) -> VerdictKind | None:
        """Takes note of an epoch of a running trial, and decides what the trial does next.

        The trial's workers read this from the record. After ``"stop"`` and ``"pause"`` they end;
        None: the epoch is not judged.
        """
        verdict = self._decider.epoch_ended(number, [metrics])
        if verdict == "pause":
            self._pausing.add(number)
        else:
            self._pausing.discard(number)
        return verdict

    def resume(self, number: int) -> bool:
        """Takes note that a trial's training broke off, and has it go on from its last checkpoint;
        False: it was to stop there anyway.
        """
        goes_on = self._decider.look_at(number, self.record.trial(number).history)
        if goes_on:
            self._to_resume.append(number)
        return goes_on

    def training_ended(self, number: int, error: str | None = None) -> Outcome | None:
        """Takes note that a trial's training stopped; ``error`` if it failed for good. None: it is
        paused, and may go on later.
        """
        if number not in self.finished:
            if error:
                # The worker that was given up may still be at work: what it publishes from now on
                # does not count.
                begin_attempt(self.record, number)
            trial, history = self._unfinished[number], self.record.trial(number).history
            self._decider.look_at(number, history)
            if number in self._decider.paused:
                self._pausing.discard(number)
                self._train_s[number] = train_seconds(history)
                return None
            if number in self._pausing and not error:  # promoted before its workers had ended
                self._pausing.discard(number)
                self._to_resume.append(number)
                return None
            outcome = self._decider.outcome(trial, history, error)
            if outcome is None:
                reason = error or "training stopped before its last epoch"
                self._decider.failed(number, reason)
                outcome = failure(history, reason, self.config)
            self.outcomes[number] = outcome
        return self.outcomes[number]

    def end_search(self) -> list[int]:
        """Prunes the trials that are paused, and names them: nothing runs, and none goes on."""
        numbers = list(self._decider.give_up())
        for number in numbers:
            self.training_ended(number)
        return numbers

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

    def _promote(self, is_last: bool) -> TrialInfo | None:
        while (number := self._decider.promote(is_last=is_last)) is not None:
            if number not in self._pausing:
                return self._unfinished[number]
        return None

    @property
    def _is_running(self) -> bool:
        """Whether any trial is being trained, or waits to be."""
        resting = self._decider.paused - self._pausing
        return bool(self._unfinished.keys() - self.outcomes.keys() - resting)

    def _recall(self) -> None:
        """Takes from the record what earlier drivers did."""
        trials = self.record.trials()
        results = {result.number: result for result in self.record.results()}
        self._check_whole({trial.number for trial in trials}, set(results))
        for trial in sorted(trials, key=lambda trial: _end_of(trial, results)):
            place = self.record.keys.trial(trial.number).info
            check_values(place, trial.params, self.config)
            self._note_proposed(trial)
            if trial.number in results:
                self._recall_finished(trial, results[trial.number])
            else:
                self._recall_unfinished(trial)

    def _recall_finished(self, trial: TrialInfo, result: TrialResult) -> None:
        self.outcomes[trial.number] = recorded_outcome(result, self.config)
        failure = result.reason or "" if result.state == "failed" else None
        self._decider.recall(trial, result.history, failure)
        self.finished.add(trial.number)
        del self._unfinished[trial.number]

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
        history = self.record.trial(trial.number).history
        self._decider.recall(trial, history, None)
        if outcome := self._decider.outcome(trial, history, None):
            self.outcomes[trial.number] = outcome
        elif trial.number in self._decider.paused:
            self._train_s[trial.number] = train_seconds(history)
        else:
            self._to_resume.append(trial.number)

    def _note_proposed(self, trial: TrialInfo) -> None:
        self._num_proposed += 1
        self._unfinished[trial.number] = trial

    def _propose(self, number: int) -> TrialInfo:
        point, repeat = divmod(number, self.config.search.num_repeats)
        trial = self._decider.propose(number, None if repeat else self._given_point(point))
        self._note_proposed(trial)
        return trial

    def _given_point(self, point: int) -> Mapping[str, Scalar] | None:
        """The parameters that someone wants tried next, from the file or from another terminal."""
        if point < len(self.config.search.first_points):
            return self.config.search.first_points[point]
        for wish in self._control.points:
            check_values(f"{self.record.keys.changes}: points", wish, self.config)
            if not any(wish.items() <= params.items() for params in self._decider.tried):
                return wish
        return None

    def _stop_reason(self, settled: Sequence[Outcome] | None) -> str | None:
        search = self.config.search
        # By their numbers: which trials end first says nothing, where good ones pause.
        num_first = search.max_first_failures
        first = [self.outcomes.get(number) for number in range(num_first)]
        if len(settled or []) >= num_first and all(
            outcome is not None and outcome.state == "failed" for outcome in first
        ):
            return f"the first {num_first} trials failed; the first one: {self.outcomes[0].reason}"
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
        ended = {number: outcome.train_s for number, outcome in self.outcomes.items()}
        seconds = sum((self._train_s | ended).values())
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


def _end_of(trial: TrialInfo, results: Mapping[int, TrialResult]) -> tuple[datetime, int]:
    """When a trial finished; those that have not come after all others, by number."""
    result = results.get(trial.number)
    return (result.finished_at if result else datetime.max.replace(tzinfo=UTC)), trial.number


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
