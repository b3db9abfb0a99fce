"""This project's study as a search: the product's own ``Study`` over a record in memory."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.search.slots import Verdict
from orchestrator.config import StudyConfig
from orchestrator.search.resolve import resolve
from orchestrator.search.search_space import Params
from orchestrator.search.stopping.rule import misses_threshold
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_record import TrialRecord
from testing.study_fixtures import PROVENANCE, study_config
from testing.study_simulation import MemoryStore

OURS = "this project"  # begins the name of each of its searches
OURS = "this project"  # begins the name of each of its searches
Histories = dict[int, list[dict[str, float]]]


class ThisProject:
    """A study of trials that train elsewhere: their epochs are told, and no checkpoint is kept."""

    def __init__(self, config: StudyConfig) -> None:
        self.config = resolve(config)
        self.histories: Histories = defaultdict(list)
        self.trials: dict[int, TrialInfo] = {}
        self.record = _Record(self.histories)
        self.record.create_or_check(self.config, PROVENANCE)
        self.study = Study(self.config, self.record)

    def next_trial(self) -> int | None:
        trial = self.study.next_trial()
        if trial == "wait":
            return None
        if trial is None:
            for number in self.study.end_search():
                self.study.finish(number)
            return None
        self.trials[trial.number] = trial
        return trial.number

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        metrics = {"epoch": epoch, "val/top1": value, "time/epoch_s": 1.0}
        self.histories[number].append(metrics)
        decided = self.study.epoch_ended(number, metrics)
        if decided == "pause":
            self.study.training_ended(number)  # as its workers end
        if decided is not None:
            return "go_on" if decided == "promote" else decided
        # with a lag a trial ends by itself
        thresholds, objective = self.trials[number].thresholds, self.record.objective
        missed = misses_threshold(self.histories[number], thresholds, objective)
        return "stop" if missed else "go_on"

    def params(self, number: int) -> Params:
        return self.trials[number].params

    def training_ended(self, number: int) -> None:
        self.study.training_ended(number)
        self.study.finish(number)


class _Record(StudyRecord):
    """A record whose trials' histories are where the benchmark puts them."""

    def __init__(self, histories: Histories) -> None:
        super().__init__(MemoryStore(), "depth")
        self._histories = histories

    def trial(self, number: int) -> TrialRecord:
        found = _TrialRecord(self.files, self._checkpoint_reader, self.keys.trial(number))
        found.told = self._histories[number]
        return found


class _TrialRecord(TrialRecord):
    told: list[dict[str, float]]

    @property
    def history(self) -> list[dict[str, float]]:
        return list(self.told)


def config_of(
    num_trials: int, num_epochs: int, slots: int, search: dict[str, object], **changes: object
) -> StudyConfig:
    """A study of trials that are told apart by their numbers.

    Args:
        num_trials: how many there are.
        num_epochs: of a whole training.
        slots: how many run at once.
        search: what the study says of its search beyond the number of its trials.
        changes: the study's other fields.
    """
    return study_config(
        train={"epochs": num_epochs},
        search={"num_trials": num_trials, "lag": None, "sampler": {"name": "random"}} | search,
        resources={"max_concurrent_trials": slots},
        benchmarks=[],
        **changes,
    )
