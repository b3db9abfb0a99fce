"""MLflow as a view of a study's record: experiment = study, parent run = study, child runs = trials.

Nothing here is a second truth. :meth:`Tracker.reconcile` looks at what MLflow has and adds what it lacks, so
it may be repeated after any failure and each trial and epoch still appears exactly once. While a study runs,
:mod:`orchestrator.mirror` does so from one background thread: a tracking server that is down delays MLflow's view and
never the training.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: it reads them then
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own retries would last 246 s
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from orchestrator import video_classifier
from orchestrator.artifacts import confusion_figure, installed_packages, per_class_csv
from orchestrator.config import Scalar
from orchestrator.progress import best_first
from orchestrator.records import (
    BASELINE,
    BenchmarkScore,
    StudyRecord,
    TrialRecord,
    TrialResult,
    flatten,
)
from orchestrator.settings import without_password
from vitaclip.checkpoint import OPTIMIZER_FILE, CurvePoint
from vitaclip.errors import InputError

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # Mirror says once what is wrong

STUDY_TAG, TRIAL_TAG, STATE_TAG = "vitaclip.study_id", "vitaclip.trial", "vitaclip.state"
MODEL_TAG = "vitaclip.model_id"
_PARENT = "study"  # the parent run's value of TRIAL_TAG
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


def check_tracking(tracking_uri: str) -> None:
    """Raises InputError, within seconds, if MLflow cannot be reached or refuses the credentials."""
    parts = urlsplit(tracking_uri)
    try:
        if parts.scheme in ("http", "https"):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=3).close()
        MlflowClient(tracking_uri).search_experiments(max_results=1)
    except (OSError, ValueError, MlflowException) as error:
        raise InputError(
            f"MLflow at {without_password(tracking_uri)}: {reason(error, tracking_uri)}; start the server, correct "
            "MLFLOW_TRACKING_URI (MLFLOW_TRACKING_USERNAME and ..._PASSWORD, ..._TOKEN, ..._SERVER_CERT_PATH), or "
            "unset it to use the local mlflow.db"
        ) from None


def reason(error: Exception, uri: str) -> str:
    """What lies at the bottom of an error, in one line, without the password that the address in it may hold."""
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    cause = root if isinstance(root, OSError) else error  # "Connection refused", not urllib3's account of it
    text = without_password(str(cause), uri) or type(cause).__name__
    return textwrap.shorten(text, 200)


class Tracker:
    """Writes one study's record into MLflow. Looks before it writes: every method may be repeated."""

    def __init__(self, tracking_uri: str, record: StudyRecord) -> None:
        self.client = MlflowClient(tracking_uri)
        self.record = record
        self._local = tracking_uri.startswith("sqlite:")
        self._trials: dict[int, TrialRecord] = {}  # that may not be complete in MLflow
        self._runs: dict[str, Run] = {}
        self._logged_epochs: dict[int, int] = {}

    def reconcile(self) -> None:
        """Brings MLflow up to the record."""
        self._find_runs()
        self._open_parent()
        self._trials = {trial.number: trial for trial in self.record.trials()}
        results = {result.number: result for result in self.record.results()}
        for number in list(self._trials):
            if number in results:
                self.log_result(results[number])
            else:
                self.log_epochs(number)
        self._log_parent_results(list(results.values()))

    def log_epochs(self, number: int, history: Sequence[Mapping[str, float]] | None = None) -> None:
        """Logs the epochs that MLflow lacks, by default those of the newest checkpoint.

        The step of an epoch's metrics is the epoch, that of ``step/loss`` and ``step/lr`` the optimiser step.

        An epoch's time is the proposal's plus that of training so far. It is the same whenever it is logged,
        so MLflow drops a row that is sent twice because its first answer was lost.
        """
        run = self._trial_run(number)
        progress = self.record.progress(number)
        ended_ms = _milliseconds(self._trial(number).proposed_at)
        for metrics in progress.history if history is None else history:
            epoch = int(metrics["epoch"])
            started_ms = ended_ms
            ended_ms += round(1000 * metrics.get("time/epoch_s", 0.0))
            if epoch > self._logged_epochs.get(number, -1):
                # One batch, for the metric "epoch" says what need not be sent again. MLflow takes up to 1,000 rows.
                points = [point for point in progress.curve if point.epoch == epoch]
                rows = _curve_rows(points, started_ms, ended_ms) + _rows(metrics, epoch, ended_ms)
                self.client.log_batch(run.info.run_id, metrics=rows)
                self._logged_epochs[number] = epoch

    def log_result(self, result: TrialResult) -> None:
        """Completes a trial's run: missing epochs, benchmarks, artifacts and its final status."""
        run = self._trial_run(result.number)
        if run.data.tags.get(STATE_TAG) != result.state:
            self._complete(run, result)
        self._trials.pop(result.number, None)

    def _complete(self, run: Run, result: TrialResult) -> None:
        self.log_epochs(result.number, result.history)
        self._log_metrics(
            run, _final_metrics(result), result.best_epoch or 0, _milliseconds(result.finished_at)
        )
        scores = self.record.scores(result.number)
        self._log_score_files(run, scores)
        self.client.log_dict(run.info.run_id, result.model_dump(mode="json"), "result.json")
        self._tag(run, self._final_tags(result))
        self._end(run, _STATUS[result.state], result.finished_at)
        self._tag(run, {STATE_TAG: result.state})  # last: from now on the run is left alone
        self._runs[str(result.number)] = self.client.get_run(run.info.run_id)

    def stop(self) -> None:
        """Gives every run that is still open its status: the study is finished, or was interrupted."""
        results = self.record.results()
        finished = len(results) >= self.record.info.config.search.num_trials
        for trial, run in self._runs.items():
            if run.info.status == "RUNNING" and trial != _PARENT:
                self._end(run, "KILLED")
        self._log_parent_results(results)
        if finished and results:
            self._register_best(best_first(self.record.info.config, results)[0])
        self._end(self._runs[_PARENT], "FINISHED" if finished else "KILLED")

    def log_scores(self, numbers: Sequence[int]) -> None:
        """Adds scores that were computed after their trials had finished to the runs that MLflow has."""
        self._find_runs()
        for number in numbers:
            run = self._runs.get(str(number))
            if run is None:
                continue
            new = [s for s in self.record.scores(number) if not s.metrics.items() <= run.data.metrics.items()]
            result = self.record.result(number)
            # As in log_result, for MLflow shows the value of the highest step.
            step = (result and result.best_epoch) or 0
            for score in new:
                self._log_metrics(run, score.metrics, step, _milliseconds(score.scored_at))
            self._log_score_files(run, new)

    def log_report(self, folder: Path) -> bool:
        """Adds a report's files to the study's run; False if there is none."""
        self._find_runs()
        if _PARENT not in self._runs:
            return False
        self.client.log_artifacts(self._runs[_PARENT].info.run_id, str(folder), "report")
        return True

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Logs this machine's load, memory, disk, network and GPUs to the parent run, every 10 s."""
        run_id, uri = self._runs[_PARENT].info.run_id, self.client.tracking_uri
        monitor: Any = SystemMetricsMonitor(run_id, tracking_uri=uri, resume_logging=True)  # type: ignore[no-untyped-call]
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    # Runs: found by tags before they are created

    def _find_runs(self) -> None:
        self._runs, self._logged_epochs = {}, {}
        for run in self._search():
            trial = run.data.tags[TRIAL_TAG]
            if trial in self._runs:  # created twice: the server's answer to the first request was lost
                self.client.delete_run(run.info.run_id)
            else:
                self._runs[trial] = run
                if trial != _PARENT:
                    self._logged_epochs[int(trial)] = int(run.data.metrics.get("epoch", -1))

    def _search(self) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment_id()],
                f"tags.`{STUDY_TAG}` = '{self.record.info.id}'",
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _experiment_id(self) -> str:
        name = self.record.name
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            # A local database has no server to say where artifacts go.
            location = f"{Path('mlartifacts').absolute().as_uri()}/{name}" if self._local else None
            return str(self.client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _open_parent(self) -> None:
        info = self.record.info
        config = info.config
        tags: dict[str, Scalar] = {f"vitaclip.{key}": value for key, value in info.provenance.items()} | {
            "vitaclip.config_hash": info.config_hash,
            "mlflow.source.git.commit": info.provenance.get("git_commit"),
            "mlflow.note.content": f"{config.question}\n\n{config.hypothesis}",
        }
        params = flatten(config.model_dump(mode="json", include={"search", "resources", "train"}))
        files = {"study.yaml": config.model_dump(mode="json"), "environment.yaml": installed_packages()}
        self._open_run(_PARENT, config.name, info.created_at, tags, params, files)

    def _trial(self, number: int) -> TrialRecord:
        if number not in self._trials:
            self._trials[number] = self.record.trial(number)
        return self._trials[number]

    def _trial_run(self, number: int) -> Run:
        trial = self._trial(number)
        parent = self._runs[_PARENT]
        shared = {key: value for key, value in parent.data.tags.items() if key.startswith("vitaclip.")}
        tags: dict[str, Scalar] = {
            **shared,
            "mlflow.parentRunId": parent.info.run_id,
            "mlflow.source.git.commit": self.record.info.provenance.get("git_commit"),
            "vitaclip.parent_trial": trial.parent,
            **{f"search.{key}": value for key, value in trial.params.items()},
        }
        config = trial.train.model_dump(mode="json")
        name, files = f"trial {number:04d}", {"config.yaml": config}
        return self._open_run(str(number), name, trial.proposed_at, tags, flatten(config), files)

    def _open_run(
        self,
        trial: str,
        name: str,
        started_at: datetime,
        tags: Mapping[str, Scalar],
        params: Mapping[str, Any],
        files: Mapping[str, dict[str, Any]],
    ) -> Run:
        """The run of a trial, or of the study: made complete at first, and RUNNING unless its state is final."""
        run = self._runs.get(trial)
        if run is None:
            identity = {STUDY_TAG: self.record.info.id, TRIAL_TAG: trial}
            run = self.client.create_run(
                self._experiment_id(),
                start_time=_milliseconds(started_at),
                tags=_tags(tags) | identity,
                run_name=name,
            )
        if not run.data.params:  # they are written last, in one transaction
            for file, content in files.items():
                self.client.log_dict(run.info.run_id, content, file)
            self.client.log_inputs(run.info.run_id, self._dataset_inputs())
            values = [Param(key, value) for key, value in _texts(params).items()]
            self.client.log_batch(run.info.run_id, params=values)
            run = self.client.get_run(run.info.run_id)
        if run.info.status != "RUNNING" and STATE_TAG not in run.data.tags:
            self.client.update_run(run.info.run_id, status="RUNNING")
            run = self.client.get_run(run.info.run_id)
        self._runs[trial] = run
        return run

    def _dataset_inputs(self) -> list[DatasetInput]:
        """The datasets whose digests the study's provenance holds, as ``dataset.<name>.<split>``."""
        inputs = []
        for key, digest in self.record.info.provenance.items():
            if key.startswith("dataset."):
                _, name, split = key.split(".", 2)
                dataset = Dataset(f"{name}/{split}", str(digest), "local", json.dumps({"dataset": name}))
                inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", split)]))
        return inputs

    # What is written into a run

    def _log_metrics(self, run: Run, metrics: Mapping[str, float], step: int, timestamp_ms: int) -> None:
        if metrics:
            self.client.log_batch(run.info.run_id, metrics=_rows(metrics, step, timestamp_ms))

    def _log_score_files(self, run: Run, scores: Sequence[BenchmarkScore]) -> None:
        for score in scores:
            for split in score.splits:
                folder = f"benchmarks/{score.benchmark.name}/{split.split}"
                self.client.log_text(run.info.run_id, per_class_csv(split), f"{folder}/per_class.csv")
                self.client.log_figure(run.info.run_id, confusion_figure(split), f"{folder}/confusion.png")

    def _log_parent_results(self, results: Sequence[TrialResult]) -> None:
        """The study's progress: the best objective after each finished trial, in the order of finishing."""
        run, objective = self._runs[_PARENT], self.record.objective
        logged = int(run.data.metrics.get("num_finished", 0))
        best: float | None = None
        for step, result in enumerate(sorted(results, key=lambda result: result.finished_at), start=1):
            metrics: dict[str, float] = {"num_finished": step}
            if result.values:
                choose = max if objective.mode == "max" else min
                best = result.values[0] if best is None else choose(best, result.values[0])
            if best is not None:
                metrics[f"best/{objective.metric}"] = best
            if step > logged:
                self._log_metrics(run, metrics, step, _milliseconds(result.finished_at))
        for score in self.record.scores(BASELINE):
            clip = {f"frozen_clip/{key}": value for key, value in score.metrics.items()}
            self._log_metrics(run, clip, 0, _milliseconds(score.scored_at))
        self._runs[_PARENT] = self.client.get_run(run.info.run_id)

    def _final_tags(self, result: TrialResult) -> dict[str, Scalar]:
        tags: dict[str, Scalar] = {"vitaclip.reason": result.reason, "vitaclip.checkpoint": result.checkpoint}
        if result.history and "micro_batch_size" in result.history[-1]:
            tags["vitaclip.out_of_memory"] = f"micro-batches of {result.history[-1]['micro_batch_size']:g}"
        if result.checkpoint:
            tags["vitaclip.backbone_sha256"] = self.record.checkpoint_info(result.checkpoint).backbone_sha256
        return tags

    def _register_best(self, result: TrialResult) -> None:
        """Logs the best trial's checkpoint as an MLflow model and registers it under the study's name, once."""
        run = self._runs[str(result.number)]
        if result.checkpoint is None or MODEL_TAG in run.data.tags:
            return
        tags = {STUDY_TAG: self.record.info.id, TRIAL_TAG: str(result.number)}
        name = f"{self.record.name}-trial-{result.number:04d}"
        model = self.client.create_logged_model(
            run.info.experiment_id, name, run.info.run_id, tags, _texts(result.params), "vitaclip"
        )
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, model_folder = Path(folder) / "checkpoint", Path(folder) / "model"
            self.record.store.download_folder(result.checkpoint, checkpoint)
            (checkpoint / OPTIMIZER_FILE).unlink(missing_ok=True)  # it is there to predict, not to resume
            video_classifier.save(
                checkpoint, model_folder, Model(run_id=run.info.run_id, model_id=model.model_id)
            )
            self.client.log_model_artifacts(model.model_id, str(model_folder))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, result.best_epoch or 0)])
        self._register(model, run.info.run_id)
        self._tag(run, {MODEL_TAG: model.model_id})

    def _register(self, model: LoggedModel, run_id: str) -> None:
        name = self.record.name
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, description=self.record.info.config.question)
        # Not "models:/<id>": a database's client looks that up at the process's tracking URI, not at its own.
        self.client.create_model_version(name, model.artifact_location, run_id, model_id=model.model_id)

    def _tag(self, run: Run, tags: Mapping[str, Scalar]) -> None:
        self.client.log_batch(
            run.info.run_id, tags=[RunTag(key, value) for key, value in _tags(tags).items()]
        )

    def _end(self, run: Run, status: str, at: datetime | None = None) -> None:
        self.client.set_terminated(run.info.run_id, status, end_time=_milliseconds(at) if at else None)


def _rows(metrics: Mapping[str, float], step: int, timestamp_ms: int) -> list[Metric]:
    return [Metric(key, value, timestamp_ms, step) for key, value in metrics.items()]


def _curve_rows(points: Sequence[CurvePoint], started_ms: int, ended_ms: int) -> list[Metric]:
    """Steps of one epoch, evenly over its time."""
    rows = []
    for index, point in enumerate(points, start=1):
        at_ms = started_ms + (ended_ms - started_ms) * index // len(points)
        rows += _rows({"step/loss": point.loss, "step/lr": point.lr}, point.step, at_ms)
    return rows


def _final_metrics(result: TrialResult) -> dict[str, float]:
    best = {f"best/{key}": value for key, value in result.metrics.items()}
    return {**best, **result.benchmarks, **{f"time/{key}": value for key, value in result.durations.items()}}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """MLflow keeps text: strings as they are, all else as JSON spells it."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _tags(values: Mapping[str, Scalar]) -> dict[str, str]:
    return _texts({key: value for key, value in values.items() if value is not None})


def _milliseconds(moment: datetime) -> int:
    return round(1000 * moment.timestamp())
