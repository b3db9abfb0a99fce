"""Decisions that depend on no order of events: trial n is proposed from trials 0 to n - lag.

They are the same in every run of a seeded study, at any number of slots, so ``trial.json`` is all
that is written of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from orchestrator.config import StudyConfig
from orchestrator.search.deciding.decider import Wish, new_trial
from orchestrator.search.outcome import Outcome, PointOutcome, outcome_of, point_outcome
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.proposer import Proposal
from orchestrator.search.search_space import Params
from orchestrator.search.stopping import stopping_rule
from orchestrator.search.stopping.rule import History, thresholds
from orchestrator.storage.records.decision import VerdictKind
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.base import KeyExistsError
from orchestrator.storage.study_record import StudyRecord

_RUNNING = PointOutcome("running")


class Lagged:
    """Proposes each trial, and its thresholds, from a fixed set of earlier ones."""

    def __init__(
        self, config: StudyConfig, record: StudyRecord, outcomes: Mapping[int, Outcome]
    ) -> None:
        self._params: dict[int, Params] = {}  # of each point
        self.paused: set[int] = set()
        self._config = config
        self._record = record
        self._outcomes = outcomes
        self._proposer = proposer_of(config)
        self._num_recalled = 0  # points that the proposer knows of
        self._rule = stopping_rule(config.search.scheduler)
        self._num_repeats = config.search.num_repeats

    @property
    def max_trials(self) -> float:
        return self._proposer.max_trials

    @property
    def tried(self) -> list[Params]:
        return [self._params[point] for point in sorted(self._params)]

    def recall(self, trial: TrialInfo, history: History, failure: str | None) -> None:
        self._note(trial)

    def awaited(self, number: int) -> list[int]:
        return [n for n in range(self._proposer.num_settled(number)) if n not in self._outcomes]

    def known_outcomes(self, number: int) -> Sequence[Outcome] | None:
        if self.awaited(number):
            return None
        return [self._outcomes[n] for n in range(self._proposer.num_settled(number))]

    def propose(self, number: int, wish: Wish) -> TrialInfo:
        trial = self.derive(number, wish)
        try:
            self._record.write_trial(trial)
        except KeyExistsError:  # by a driver that lost its lease a moment ago: the same proposal
            trial = self._record.trial(number).info
        self._note(trial)
        return trial

    def derive(self, number: int, wish: Wish) -> TrialInfo:
        """What trial ``number`` is, from the trials that it may depend on."""
        search = self._config.search
        point, repeat = divmod(number, self._num_repeats)
        proposal = Proposal(self._params[point]) if repeat else self._next_point(wish)
        trial = new_trial(self._config, number, proposal, datetime.now(UTC))
        curves = [outcome.curve for outcome in self.known_outcomes(number) or ()]
        found = thresholds(self._rule, search.objectives[0], number, trial.train.epochs, curves)
        return trial.model_copy(update={"thresholds": found})

    def promote(self, *, is_last: bool) -> int | None:
        return None

    def look_at(self, number: int, history: History) -> bool:
        return True

    def epoch_ended(self, number: int, history: History) -> VerdictKind | None:
        return None

    def failed(self, number: int, reason: str) -> None:
        """The study's outcomes tell of it."""

    def outcome(self, trial: TrialInfo, history: History, error: str | None) -> Outcome | None:
        return None if error else outcome_of(trial, history, self._config)

    def take_over(self) -> TrialInfo | None:
        return None

    def give_up(self) -> Sequence[int]:
        return ()

    def _note(self, trial: TrialInfo) -> None:
        if trial.number % self._num_repeats == 0:
            self._params[trial.number // self._num_repeats] = trial.params

    def _next_point(self, wish: Wish) -> Proposal:
        tried = self.tried
        for point in range(self._num_recalled, len(tried)):
            self._proposer.recall(self._points(point), tried[point])
        self._num_recalled = len(tried) + 1
        return self._proposer.propose(tried, self._points(len(tried)), wish)

    def _points(self, point: int) -> list[PointOutcome]:
        """How the points before one stand, as far as it may depend on them."""
        repeats = self._num_repeats
        num_settled = self._proposer.num_settled(point * repeats) // repeats
        trials = [self._outcomes[number].as_point for number in range(num_settled * repeats)]
        ended = [
            point_outcome(trials[first : first + repeats], repeats)
            for first in range(0, len(trials), repeats)
        ]
        return ended + [_RUNNING] * (point - num_settled)
