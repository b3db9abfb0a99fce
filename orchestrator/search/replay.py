"""Takes every decision of a study again, from its record alone, and compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config import StudyConfig
from orchestrator.search.deciding.asynchronous import propose
from orchestrator.search.deciding.decider import Wish
from orchestrator.search.deciding.lagged import Lagged
from orchestrator.search.deciding.ledger import Ledger
from orchestrator.search.outcome import outcome_of
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.proposer import Proposer
from orchestrator.search.search_space import Params
from orchestrator.search.study import Study
from orchestrator.storage.journal import read_journal
from orchestrator.storage.records.decision import (
    Decision,
    GaveUp,
    JournalEntry,
    Proposed,
    Report,
)
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.study_record import StudyRecord

# What a trial is, but for the time.
_PROPOSED = ("params", "train", "thresholds", "judged_epochs", "parent", "stop_epoch")


@dataclass(frozen=True)
class Replay:
    """How many decisions came out equal, and the first that did not, in words."""

    num_equal: int
    difference: str | None


def replay(record: StudyRecord) -> Replay:
    """Derives the decisions of a study in their order, up to the first that differs.

    Raises:
        InputError: the study does not exist, or its record is not whole.
    """
    config = record.info.config
    differences = (
        _asynchronous(config, record) if config.search.lag is None else _lagged(config, record)
    )
    num_equal = 0
    for difference in differences:
        if difference is not None:
            return Replay(num_equal, difference)
        num_equal += 1
    return Replay(num_equal, None)


def _asynchronous(config: StudyConfig, record: StudyRecord) -> Iterator[str | None]:
    """For each decision of the journal what is otherwise, if anything is."""
    ledger, proposer = Ledger(config), proposer_of(config)
    histories = _Histories(record)
    for entry in read_journal(record):
        place = record.keys.decision(entry.number)
        if wrong := histories.contradicting(entry):
            yield f"{place}: {wrong}"
        for observation in entry.seen:
            ledger.see(observation)
        derived = _derived(config, proposer, ledger, entry.decision)
        if derived != entry.decision:
            yield f"{place}: {_text(entry.decision)} was decided, derived is {_text(derived)}"
        ledger.apply(entry.decision)
        yield None


def _derived(
    config: StudyConfig, proposer: Proposer, ledger: Ledger, recorded: Decision
) -> Decision | None:
    if isinstance(recorded, Proposed):
        return propose(config, proposer, ledger, recorded.wish)
    if isinstance(recorded, GaveUp):
        return ledger.giving_up()
    if recorded.kind == "promote":
        return ledger.promotion() or ledger.last_promotion()
    return ledger.judge(recorded.trial) if ledger.trials[recorded.trial].is_due else None


class _Histories:
    """What trials reported, as their own records have it."""

    def __init__(self, record: StudyRecord) -> None:
        self._record = record
        self._metrics = [objective.metric for objective in record.info.config.search.objectives]
        self._known: dict[int, dict[int, Mapping[str, float]]] = {}

    def contradicting(self, entry: JournalEntry) -> str | None:
        """What of an entry's observations is otherwise in the trial's record, in words."""
        for report in entry.seen:
            if isinstance(report, Report) and (wrong := self._differing(report)):
                return wrong
        return None

    def _differing(self, report: Report) -> str | None:
        found = self._of(report.trial).get(report.epoch, {})
        for metric, value in zip(self._metrics, report.values, strict=True):
            if value is not None and found.get(metric) != value:
                return (
                    f"trial {report.trial} reported {metric} {value} after epoch {report.epoch}, "
                    f"but its own record has {found.get(metric, 'none')}"
                )
        return None

    def _of(self, number: int) -> dict[int, Mapping[str, float]]:
        if number not in self._known:
            trial = self._record.trial(number)
            history = trial.result.history if trial.result else trial.history
            self._known[number] = {int(metrics["epoch"]): metrics for metrics in history}
        return self._known[number]


def _lagged(config: StudyConfig, record: StudyRecord) -> Iterator[str | None]:
    """For each trial what of its proposal, or of how it was stopped, is otherwise."""
    outcomes = Study(config, record).outcomes
    trials = record.trials()
    decider = Lagged(config, record, outcomes)
    for trial in trials:
        if decider.known_outcomes(trial.number) is None:
            return  # a trial that it depends on has failed, but its result is not written yet
        place = record.keys.trial(trial.number).info
        wish, *others = _possible_wishes(config, record, decider.tried, trial)
        derived = decider.derive(trial.number, wish)
        if others and _differing(derived, trial):
            # by chance the sampler had tried what someone asked for later
            decider = Lagged(config, record, outcomes)
            for earlier in trials[: trial.number]:
                decider.recall(earlier, (), None)
            derived = decider.derive(trial.number, others[0])
        decider.recall(trial, (), None)
        if (differing := _differing(derived, trial)) is not None:
            yield f"{place}: {differing}"
        yield _otherwise_ended(config, record, trial)


def _possible_wishes(
    config: StudyConfig, record: StudyRecord, tried: Sequence[Params], trial: TrialInfo
) -> list[Wish]:
    """What may have been asked for when a trial was proposed, the likeliest first."""
    point, repeat = divmod(trial.number, config.search.num_repeats)
    if repeat:
        return [None]
    if point < len(config.search.first_points):
        return [config.search.first_points[point]]
    fulfilled = [
        wish
        for wish in record.control().points
        if wish.items() <= trial.params.items()
        and not any(wish.items() <= params.items() for params in tried)
    ]
    return [*fulfilled[:1], None]


def _differing(derived: TrialInfo, recorded: TrialInfo) -> str | None:
    for name in _PROPOSED:
        was, is_now = getattr(recorded, name), getattr(derived, name)
        if was != is_now:
            return f"{name}: {was} was decided, derived is {is_now}"
    return None


def _otherwise_ended(config: StudyConfig, record: StudyRecord, trial: TrialInfo) -> str | None:
    result = record.trial(trial.number).result
    if result is None or result.state == "failed":
        return None
    outcome = outcome_of(trial, result.history, config)
    found = None if outcome is None else (outcome.state, outcome.reason)
    if found == (result.state, result.reason):
        return None
    place = record.keys.trial(trial.number).result
    return f"{place}: {result.state} ({result.reason}) was decided, derived is {found}"


def _text(decision: Decision | None) -> str:
    return "nothing" if decision is None else decision.model_dump_json(exclude_none=True)
