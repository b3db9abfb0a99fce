"""A study's record in the store: the only truth about what was proposed, trained and scored."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property

from orchestrator.config import Objective, Scalar, StudyConfig
from orchestrator.storage.checkpoint_reader import CheckpointReader
from orchestrator.storage.keys import StudyKeys, number_of, study_of, trial_of
from orchestrator.storage.record_files import RecordFiles, Unreadable
from orchestrator.storage.records.control import Control, ControlChange
from orchestrator.storage.records.score import Baseline, ScoredModel
from orchestrator.storage.records.study import StudyInfo, StudyInputs
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.same_study import check_same_config, check_same_inputs, config_hash
from orchestrator.storage.scores import Scores
from orchestrator.storage.stores.base import KeyExistsError, MissingKeyError, Store
from orchestrator.storage.trial_record import TrialRecord
from vitaclip.errors import InputError


class StudyRecord:
    """Reads and writes one study's record."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.keys = StudyKeys(name)
        self.files = RecordFiles(store)
        self._checkpoint_reader = CheckpointReader(store)

    def exists(self) -> bool:
        """Whether the study was ever started."""
        return self.store.exists(self.keys.info)

    def create_or_check(
        self,
        config: StudyConfig,
        provenance: Mapping[str, Scalar],
        inputs: StudyInputs | None = None,
    ) -> None:
        """Writes ``study.json``, or checks that the study there asks the same question of the same
        data.

        Number of trials, benchmarks, resources and prose may differ from the last start; they are
        updated, and data of benchmarks that are new is added.

        Raises:
            InputError: the study exists with another config, other data or another backbone; names
                every difference.
        """
        inputs = inputs or StudyInputs()
        before = self.files.read_if_there(self.keys.info, StudyInfo)
        if before is None:
            info = StudyInfo(
                id=uuid.uuid4().hex,
                created_at=datetime.now(UTC),
                config=config,
                config_hash=config_hash(config),
                provenance=dict(provenance),
                inputs=inputs,
            )
        else:
            info = self._continued(before, config, inputs)
        self.files.write(self.keys.info, info)
        self.__dict__.pop("info", None)

    def _continued(self, before: StudyInfo, config: StudyConfig, inputs: StudyInputs) -> StudyInfo:
        place = f"study {self.name!r} in {self.store.uri}"
        check_same_config(place, before.config, config)
        check_same_inputs(place, before.inputs, inputs)
        num_trials = config.search.num_trials
        if num_trials != before.config.search.num_trials and self._change_keys():
            # the latest word
            self.add_change(ControlChange(num_trials=num_trials))
        return before.model_copy(update={"config": config, "inputs": before.inputs.joined(inputs)})

    @cached_property
    def info(self) -> StudyInfo:
        """``study.json``. Raises InputError if the study was never started."""
        try:
            return self.files.read(self.keys.info, StudyInfo)
        except MissingKeyError:
            raise InputError(
                f"study {self.name!r}: not found in {self.store.uri}; list the studies with "
                "`python -m orchestrator.ls`, or name another store in VITACLIP_STORE"
            ) from None

    @property
    def objective(self) -> Objective:
        """The first objective, by which trials and epochs are ranked."""
        return self.info.config.search.objectives[0]

    def control(self) -> Control:
        """How many trials there are to be, whether the study is paused, and the points to try
        soon.
        """
        changes = self.files.read_all(self._change_keys(), ControlChange)
        return Control.of(self.info.config, changes)

    def add_change(self, change: ControlChange) -> None:
        """Changes a study that may be running. Changes that are made at once all count."""
        while True:
            number = max(map(number_of, self._change_keys()), default=0) + 1
            try:
                self.files.create(self.keys.change(number), change)
            except KeyExistsError:  # by another terminal, at the same moment
                continue
            return

    def _change_keys(self) -> list[str]:
        return [key for key in self.store.list(self.keys.changes) if key.endswith(".json")]

    def write_trial(self, trial: TrialInfo) -> None:
        """Records a proposal, before it starts. Raises KeyExistsError if the number is taken."""
        self.files.create(self.keys.trial(trial.number).info, trial)

    def write_result(self, result: TrialResult) -> None:
        """Records how a trial ended. Raises KeyExistsError if it has ended already."""
        self.files.create(self.keys.trial(result.number).result, result)

    def trial(self, number: int) -> TrialRecord:
        """What is on record of one trial now."""
        return TrialRecord(self.files, self._checkpoint_reader, self.keys.trial(number))

    def trials(self, unreadable: Unreadable | None = None) -> list[TrialInfo]:
        """Every trial ever proposed, by number. Files that cannot be read raise StoreError, or are
        noted.
        """
        keys = [key for number, key in self._numbered() if key == self.keys.trial(number).info]
        return self.files.read_all(keys, TrialInfo, unreadable)

    def results(self, unreadable: Unreadable | None = None) -> list[TrialResult]:
        """Every finished trial, by number. Files that cannot be read raise StoreError, or are
        noted.
        """
        keys = [key for number, key in self._numbered() if key == self.keys.trial(number).result]
        return self.files.read_all(keys, TrialResult, unreadable)

    def scores(self, model: ScoredModel) -> Scores:
        """The benchmarks' scores of one trial or baseline."""
        if isinstance(model, Baseline):
            return Scores(self.files, self.keys.baseline_scores(model.key))
        return self.trial(model).scores

    def _numbered(self) -> list[tuple[int, str]]:
        """The keys of ``trial.json`` and ``result.json`` of all trials, by number."""
        found = ((trial_of(key), key) for key in self.store.list(self.keys.trials))
        return sorted((number, key) for number, key in found if number is not None)


def study_names(store: Store) -> list[str]:
    """The studies that a store holds."""
    return [name for name in map(study_of, store.list("")) if name is not None]
