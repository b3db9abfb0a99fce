"""The runs of one study in MLflow: one for the study, one for each trial. They are looked for
before they are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Param,
    Run,
    RunTag,
    ViewType,
)

from orchestrator.config import Scalar
from orchestrator.dotted import flatten
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.same_study import MAY_CHANGE
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.artifacts import installed_packages
from orchestrator.tracking.mlflow.client import milliseconds, present, texts, user_name

STUDY_TAG, TRIAL_TAG, STATE_TAG = "vitaclip.study_id", "vitaclip.trial", "vitaclip.state"
PARENT = "study"  # the parent run's value of TRIAL_TAG
_PARENT_RUN_TAG = "mlflow.parentRunId"
# MLflow's page shows an experiment by its kind; without one it takes this for a study of language
# models.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"


class _FinalRun(NamedTuple):
    id: str
    state: str


class Runs:
    """Finds and opens runs.

    Of a run whose state is final little is kept: a study may have thousands of trials.
    """

    def __init__(self, client: MlflowClient, record: StudyRecord) -> None:
        self.client = client
        self.record = record
        self._open_runs: dict[str, Run] = {}  # by their TRIAL_TAG, as they were when last read
        self._final: dict[str, _FinalRun] = {}  # the others
        self._parent_of: dict[str, str | None] = {}  # of each trial's run: the id of its parent run
        self._experiment = ""  # its id

    @property
    def parent(self) -> Run:
        """The study's run."""
        return self._open_runs[PARENT]

    @property
    def unfinished_trials(self) -> list[Run]:
        """Runs of trials that have no final status."""
        trials = (run for trial, run in self._open_runs.items() if trial != PARENT)
        return [run for run in trials if run.info.status == "RUNNING"]

    def get(self, trial: str) -> Run | None:
        """A trial's run, or PARENT's, if MLflow has it."""
        if final := self._final.get(trial):
            return self.client.get_run(final.id)
        return self._open_runs.get(trial)

    def final_state(self, trial: str) -> str | None:
        """The state that a trial's run is complete with; None if it is not."""
        final = self._final.get(trial)
        return final and final.state

    def reread(self, run: Run) -> None:
        """Takes note of what was written into a run."""
        self._keep(self.client.get_run(run.info.run_id))

    def find(self) -> None:
        """Looks at what MLflow has. Runs that someone deleted come back: a study is shown whole."""
        self._open_runs, self._final, self._parent_of = {}, {}, {}
        self._experiment = self._open_experiment()
        deleted: dict[str, str] = {}
        for run in self._search():
            trial = run.data.tags[TRIAL_TAG]
            if run.info.lifecycle_stage == "deleted":
                deleted.setdefault(trial, run.info.run_id)
            # made twice: the first answer was lost
            elif trial in self._open_runs or trial in self._final:
                self.client.delete_run(run.info.run_id)
            else:
                self._keep(run)
        for trial in deleted.keys() - self._open_runs.keys() - self._final.keys():
            self.client.restore_run(deleted[trial])
            self._keep(self.client.get_run(deleted[trial]))

    def open_parent(self) -> Run:
        """The study's run, made if there is none."""
        info = self.record.info
        config = info.config
        tags: dict[str, Scalar] = {
            f"vitaclip.{key}": value for key, value in info.provenance.items()
        } | {
            "vitaclip.config_hash": info.config_hash,
            "mlflow.source.git.commit": info.provenance.get("git_commit"),
            "mlflow.note.content": f"{config.question}\n\n{config.hypothesis}",
        }
        values = flatten(config.model_dump(mode="json", include={"search", "resources", "train"}))
        # MLflow lets no parameter change: what a later start may change are tags.
        params = {key: value for key, value in values.items() if not key.startswith(MAY_CHANGE)}
        tags |= {f"study.{key}": str(value) for key, value in values.items() if key not in params}
        run = self._open(PARENT, config.name, info.created_at, tags, params, {})
        self._describe(run, tags)
        for child, parent in self._parent_of.items():
            if parent != run.info.run_id:  # it was deleted for good, and this one is new
                self.client.set_tag(child, _PARENT_RUN_TAG, run.info.run_id)
        return run

    def _describe(self, run: Run, tags: Mapping[str, Scalar]) -> None:
        """Brings the study's run up to its last start."""
        config = self.record.info.config.model_dump(mode="json")
        rows = [RunTag(key, value) for key, value in present(tags).items()]
        self.client.log_batch(run.info.run_id, tags=rows)
        self.client.log_dict(run.info.run_id, config, "study.yaml")
        self.client.log_dict(run.info.run_id, installed_packages(), "environment.yaml")

    def open_trial(self, trial: TrialInfo) -> Run:
        """A trial's run, made if there is none."""
        shared = {
            key: value
            for key, value in self.parent.data.tags.items()
            if key.startswith("vitaclip.")
        }
        tags: dict[str, Scalar] = {
            **shared,
            _PARENT_RUN_TAG: self.parent.info.run_id,
            "mlflow.source.git.commit": self.record.info.provenance.get("git_commit"),
            "vitaclip.parent_trial": trial.parent,
            **{f"search.{key}": value for key, value in trial.params.items()},
        }
        config = trial.train.model_dump(mode="json")
        name, files = f"trial {trial.number:04d}", {"config.yaml": config}
        return self._open(str(trial.number), name, trial.proposed_at, tags, flatten(config), files)

    def _search(self) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment],
                f"tags.`{STUDY_TAG}` = '{self.record.info.id}'",
                ViewType.ALL,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _open_experiment(self) -> str:
        """The id of the study's experiment, which has the study's name unless someone renamed
        it.
        """
        name, tag = self.record.name, _study_tag(self.record)
        experiment = find_experiment(self.client, self.record)
        if experiment is None:
            # A local database has no server to say where artifacts go.
            local = self.client.tracking_uri.startswith("sqlite:")
            location = f"{Path('mlartifacts').absolute().as_uri()}/{name}" if local else None
            tags = {_KIND_TAG: _KIND, tag: "true"}
            return str(self.client.create_experiment(name, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for key, value in ((tag, "true"), (_KIND_TAG, _KIND)):
            if key not in experiment.tags:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _open(
        self,
        trial: str,
        name: str,
        started_at: datetime,
        tags: Mapping[str, Scalar],
        params: Mapping[str, Any],
        files: Mapping[str, dict[str, Any]],
    ) -> Run:
        """A run, made complete at first, and RUNNING unless its state is final."""
        run = self.get(trial)
        if run is None:
            identity = {STUDY_TAG: self.record.info.id, TRIAL_TAG: trial}
            run = self.client.create_run(
                self._experiment,
                start_time=milliseconds(started_at),
                tags=present(tags) | identity | {"mlflow.user": user_name()},
                run_name=name,
            )
        if not run.data.params:  # they are written last, in one transaction
            for file, content in files.items():
                self.client.log_dict(run.info.run_id, content, file)
            self.client.log_inputs(run.info.run_id, self._dataset_inputs())
            values = [Param(key, value) for key, value in texts(params).items()]
            self.client.log_batch(run.info.run_id, params=values)
            run = self.client.get_run(run.info.run_id)
        if run.info.status != "RUNNING" and STATE_TAG not in run.data.tags:
            self.client.update_run(run.info.run_id, status="RUNNING")
            run = self.client.get_run(run.info.run_id)
        self._keep(run)
        return run

    def _keep(self, run: Run) -> None:
        trial = run.data.tags[TRIAL_TAG]
        if trial != PARENT:
            self._parent_of[run.info.run_id] = run.data.tags.get(_PARENT_RUN_TAG)
        if STATE_TAG in run.data.tags:
            self._open_runs.pop(trial, None)
            self._final[trial] = _FinalRun(run.info.run_id, run.data.tags[STATE_TAG])
        else:
            self._open_runs[trial] = run

    def _dataset_inputs(self) -> list[DatasetInput]:
        """The datasets that the study reads."""
        inputs = []
        for key, identity in self.record.info.inputs.data.items():
            name, split = key.rsplit("/", 1)
            dataset = Dataset(key, identity.digest, "local", json.dumps({"dataset": name}))
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", split)]))
        return inputs


def find_experiment(client: MlflowClient, record: StudyRecord) -> Experiment | None:
    """The study's experiment, whatever its name is now; None if there is none yet."""
    known = client.search_experiments(
        ViewType.ALL, filter_string=f"tags.`{_study_tag(record)}` = 'true'"
    )
    return known[0] if known else client.get_experiment_by_name(record.name)


def _study_tag(record: StudyRecord) -> str:
    """The experiment's tag that names its study."""
    return f"vitaclip.study.{record.info.id}"
