"""Decisions from all that is known: a free slot gets its trial at once.

What is known when depends on how fast each trial is, so every decision is written to the journal,
with what was learned since the one before, before anything is done about it. A restarted driver
recalls the journal and goes on; nothing is decided twice, and each decision can be derived again
(:mod:`orchestrator.search.replay`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.config import StudyConfig
from orchestrator.search.deciding.decider import Wish, new_trial
from orchestrator.search.deciding.ledger import Ledger
from orchestrator.search.outcome import Outcome, failure, finished_training, pruning
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.proposer import Proposal, Proposer
from orchestrator.search.search_space import Params
from orchestrator.search.stopping.rule import History
from orchestrator.storage.journal import read_journal, write_entry
from orchestrator.storage.records.decision import (
    Decision,
    Failure,
    JournalEntry,
    Observation,
    Proposed,
    Report,
    Verdict,
    VerdictKind,
)
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.base import KeyExistsError
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.verdicts import tell_verdict
from vitaclip.errors import InputError


class Asynchronous:
    """Proposes, judges and promotes from the ledger, and keeps the journal."""

    def __init__(
        self, config: StudyConfig, record: StudyRecord, outcomes: Mapping[int, Outcome]
    ) -> None:
        self._config = config
        self._record = record
        self._outcomes = outcomes
        self._ledger = Ledger(config)
        self._unwritten: list[Observation] = []  # learned since the last decision
        self._proposer = proposer_of(config)
        # what the proposer has not been told of: all of it, until the first proposal
        self._untold: list[JournalEntry] | None = read_journal(record)
        self._num_decisions = len(self._untold)
        for entry in self._untold:
            fold(self._ledger, entry)

    @property
    def max_trials(self) -> float:
        return self._proposer.max_trials

    @property
    def tried(self) -> Sequence[Params]:
        return self._ledger.tried()

    @property
    def paused(self) -> set[int]:
        trials = self._ledger.trials
        return {number for number, trial in enumerate(trials) if trial.status == "paused"}

    def recall(self, trial: TrialInfo, history: History, failure: str | None) -> None:
        if trial.number >= len(self._ledger.trials):
            raise InputError(
                f"{self._record.store.uri}: {self._record.keys.trial(trial.number).info} is there, "
                f"but no decision in {self._record.keys.decisions} proposed it; restore them from "
                "a copy, or start the study under another name (--set name=...)"
            )
        self._note(trial.number, history)
        if failure is not None:
            self.failed(trial.number, failure)

    def awaited(self, number: int) -> list[int]:
        return [n for n in range(self._proposer.num_settled(number)) if n not in self._outcomes]

    def known_outcomes(self, number: int) -> Sequence[Outcome] | None:
        if self.awaited(number):
            return None
        return [self._outcomes[n] for n in self._ledger.ended if n in self._outcomes]

    def propose(self, number: int, wish: Wish) -> TrialInfo:
        proposed = propose(self._config, self._ready_proposer(), self._ledger, wish)
        return self._write_trial(self._decide(proposed))

    def promote(self, *, is_last: bool) -> int | None:
        verdict = self._ledger.promotion()
        if verdict is None and is_last:
            verdict = self._ledger.last_promotion()
        if verdict is None:
            return None
        self._decide(verdict)
        return verdict.trial

    def look_at(self, number: int, history: History) -> bool:
        self.epoch_ended(number, history)
        return self._ledger.trials[number].status == "running"

    def epoch_ended(self, number: int, history: History) -> VerdictKind | None:
        if history and history[0]["epoch"] > self._ledger.trials[number].epoch + 1:
            # epochs were published by a worker that died before it could report them
            history = self._record.trial(number).history
        self._note(number, history)
        if not self._ledger.trials[number].is_due:
            return None
        verdict = self._ledger.judge(number)
        self._decide(verdict)
        return verdict.kind

    def failed(self, number: int, reason: str) -> None:
        if self._ledger.trials[number].status in ("running", "paused"):
            self._see(Failure(trial=number, reason=reason))

    def outcome(self, trial: TrialInfo, history: History, error: str | None) -> Outcome | None:
        state = self._ledger.trials[trial.number]
        match state.status:
            case "complete":
                return finished_training(history, self._config)
            case "pruned":
                return pruning(history, state.reason or "", self._config)
            case "failed":
                return failure(history, state.reason or "", self._config)
            case "running" | "paused":
                return None

    def give_up(self) -> Sequence[int]:
        decision = self._ledger.giving_up()
        if decision is None:
            return ()
        self._decide(decision)
        return decision.trials

    def take_over(self) -> TrialInfo | None:
        for entry in (self._untold or [])[-1:]:
            if isinstance(entry.decision, Proposed):
                return self._write_trial(entry)
            if isinstance(entry.decision, Verdict):
                tell_verdict(self._record, entry.decision)
        return None

    def _decide(self, decision: Decision) -> JournalEntry:
        number = self._num_decisions + 1
        entry = write_entry(self._record, number, self._unwritten, decision)
        self._num_decisions, self._unwritten = number, []
        if self._untold is not None:
            self._untold.append(entry)
        self._ledger.apply(decision)
        if isinstance(decision, Verdict):
            tell_verdict(self._record, decision)
        return entry

    def _write_trial(self, entry: JournalEntry) -> TrialInfo:
        assert isinstance(entry.decision, Proposed)
        number = entry.decision.trial
        judged_epochs = self._ledger.trials[number].judged_epochs
        trial = new_trial(self._config, number, proposal_of(entry.decision), entry.decided_at)
        trial = trial.model_copy(update={"judged_epochs": judged_epochs})
        try:
            self._record.write_trial(trial)
        except KeyExistsError:  # another version of the code wrote it: that counts
            trial = self._record.trial(number).info
        return trial

    def _note(self, number: int, history: History) -> None:
        """Takes note of epochs that were not known yet."""
        known = self._ledger.trials[number].epoch
        metrics = [objective.metric for objective in self._config.search.objectives]
        for epoch in history:
            if epoch["epoch"] > known and metrics[0] in epoch:
                values = tuple(_number_or_none(epoch.get(metric)) for metric in metrics)
                self._see(Report(trial=number, epoch=int(epoch["epoch"]), values=values))

    def _see(self, observation: Observation) -> None:
        self._ledger.see(observation)
        self._unwritten.append(observation)

    def _ready_proposer(self) -> Proposer:
        """The proposer, when it knows of every earlier proposal."""
        if self._untold is not None:
            ledger = Ledger(self._config)
            for entry in self._untold:
                recall_entry(self._config, self._proposer, ledger, entry)
            self._untold = None
        return self._proposer


def fold(ledger: Ledger, entry: JournalEntry) -> None:
    """Takes an entry of the journal into account."""
    for observation in entry.seen:
        ledger.see(observation)
    ledger.apply(entry.decision)


def recall_entry(
    config: StudyConfig, proposer: Proposer, ledger: Ledger, entry: JournalEntry
) -> None:
    """The same, and makes the proposer know of a proposal.

    Args:
        config: the study's.
        proposer: it knows of all entries before.
        ledger: it knows of all entries before.
        entry: the next one.
    """
    decision = entry.decision
    if isinstance(decision, Proposed) and decision.trial % config.search.num_repeats == 0:
        for observation in entry.seen:
            ledger.see(observation)
        proposer.recall(ledger.points(), decision.params)
    fold(ledger, entry)


def propose(config: StudyConfig, proposer: Proposer, ledger: Ledger, wish: Wish) -> Proposed:
    """The next proposal, from all that is known: a pure function of its arguments' history.

    Args:
        config: the study's.
        proposer: it knows of all earlier proposals.
        ledger: it knows of all earlier decisions.
        wish: parameters that someone wants tried next; None: the proposer chooses all.
    """
    number = len(ledger.trials)
    if number % config.search.num_repeats:
        proposal = Proposal(ledger.tried()[-1])
    else:
        proposal = proposer.propose(ledger.tried(), ledger.points(), wish)
    return Proposed(
        trial=number,
        params=proposal.params,
        parent=proposal.parent,
        stop_epoch=proposal.stop_epoch,
        wish=None if wish is None else dict(wish),
    )


def proposal_of(decision: Proposed) -> Proposal:
    """What the proposer said."""
    return Proposal(decision.params, decision.parent, decision.stop_epoch)


def _number_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
