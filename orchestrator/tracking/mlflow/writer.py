"""MLflow as a view of a study's record: experiment = study, parent run = study, child runs =
trials.

Nothing here is a second truth. :meth:`MlflowWriter.reconcile` looks at what MLflow has and adds
what it lacks, so it may be repeated after any failure and each trial and epoch still appears
exactly once. While a study runs, :mod:`orchestrator.tracking.observer` does so from one background
thread: a tracking server that is down delays MLflow's view and never the training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from orchestrator.config import Scalar
from orchestrator.evaluation.ranking import best_first
from orchestrator.search.study import Study
from orchestrator.storage.records.score import Baseline, BenchmarkScore
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.artifacts import confusion_figure, curves_csv, per_class_csv
from orchestrator.tracking.mlflow.client import metric_rows, milliseconds, present
from orchestrator.tracking.mlflow.registry import register_best
from orchestrator.tracking.mlflow.runs import PARENT, STATE_TAG, Runs
from vitaclip.checkpoint_info import CurvePoint, seconds_of

_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


class MlflowWriter:
    """Writes one study's record into MLflow. Looks before it writes: every method may be
    repeated.
    """

    def __init__(self, tracking_uri: str, record: StudyRecord) -> None:
        self.client = MlflowClient(tracking_uri)
        self.record = record
        self._runs = Runs(self.client, record)
        self._trials: dict[int, TrialInfo] = {}  # that may not be complete in MLflow
        self._logged_epochs: dict[int, int] = {}

    def reconcile(self) -> None:
        """Brings MLflow up to the record."""
        self._runs.find()
        self._runs.open_parent()
        self._logged_epochs = {}
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

        The step of an epoch's metrics is the epoch, that of ``step/loss`` and ``step/lr`` the
        optimizer step.

        An epoch's time is the proposal's plus that of training so far. It is the same whenever it
        is logged, so MLflow drops a row that is sent twice because its first answer was lost.
        """
        trial = self._trial(number)
        run = self._runs.open_trial(trial)
        logged = self._logged_epochs.setdefault(number, int(run.data.metrics.get("epoch", -1)))
        progress = self.record.trial(number).progress
        ended_ms = milliseconds(trial.proposed_at)
        for metrics in progress.history if history is None else history:
            epoch = int(metrics["epoch"])
            started_ms = ended_ms
            ended_ms += round(1000 * seconds_of(metrics))
            if epoch > logged:
                # One batch, for the metric "epoch" says what need not be sent again. MLflow takes
                # up to 1,000 rows.
                points = [point for point in progress.curve if point.epoch == epoch]
                rows = _curve_rows(points, started_ms, ended_ms) + metric_rows(
                    metrics, epoch, ended_ms
                )
                self.client.log_batch(run.info.run_id, metrics=rows)
                self._logged_epochs[number] = epoch

    def log_finished(self, number: int) -> None:
        """Completes a trial's run, whose result is in the store."""
        if result := self.record.trial(number).result:
            self.log_result(result)

    def log_result(self, result: TrialResult) -> None:
        """Completes a trial's run: missing epochs, benchmarks, artifacts and its final status."""
        if self._runs.final_state(str(result.number)) != result.state:
            self._complete(self._runs.open_trial(self._trial(result.number)), result)
        self._trials.pop(result.number, None)
        self._logged_epochs.pop(result.number, None)

    def stop(self) -> None:
        """Gives every run that is still open its status: the study has ended as it was told, or was
        interrupted.

        A study none of whose trials got to an end has failed.
        """
        config, results = self.record.info.config, self.record.results()
        ended = Study(config, self.record).has_ended
        for run in self._runs.unfinished_trials:
            self._end(run, "KILLED")
        self._log_parent_results(results)
        best = next(
            (result for result in best_first(config, results) if result.state != "failed"), None
        )
        if ended and best:
            register_best(
                self.client, self.record, best, self._runs.open_trial(self._trial(best.number))
            )
        status = ("FINISHED" if best else "FAILED") if ended else "KILLED"
        self._end(self._runs.parent, status)

    def log_scores(self, numbers: Sequence[int]) -> None:
        """Adds scores that were computed after their trials had finished to the runs that MLflow
        has.
        """
        self._runs.find()
        for number in numbers:
            run = self._runs.get(str(number))
            if run is None:
                continue
            new = [
                s
                for s in self.record.scores(number).read_all()
                if not s.metrics.items() <= run.data.metrics.items()
            ]
            result = self.record.trial(number).result
            # As in log_result, for MLflow shows the value of the highest step.
            step = (result and result.best_epoch) or 0
            for score in new:
                self._log_metrics(run, score.metrics, step, milliseconds(score.scored_at))
            self._log_score_files(run, new)
            self._log_baseline(run, Baseline.of(self._trial(number).train))

    def log_report(self, folder: Path) -> bool:
        """Adds a report's files to the study's run; False if there is none."""
        self._runs.find()
        parent = self._runs.get(PARENT)
        if parent is not None:
            self.client.log_artifacts(parent.info.run_id, str(folder), "report")
        return parent is not None

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """Logs this machine's load, memory, disk, network and GPUs to the parent run, every 10
        s.
        """
        run_id, uri = self._runs.parent.info.run_id, self.client.tracking_uri
        monitor: Any = SystemMetricsMonitor(run_id, tracking_uri=uri, resume_logging=True)  # type: ignore[no-untyped-call]
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def _trial(self, number: int) -> TrialInfo:
        if number not in self._trials:
            self._trials[number] = self.record.trial(number).info
        return self._trials[number]

    def _complete(self, run: Run, result: TrialResult) -> None:
        self.log_epochs(result.number, result.history)
        finished_ms = milliseconds(result.finished_at)
        self._log_metrics(run, _final_metrics(result), result.best_epoch or 0, finished_ms)
        self._log_score_files(run, self.record.scores(result.number).read_all())
        self._log_baseline(run, Baseline.of(self._trial(result.number).train))
        self.client.log_text(run.info.run_id, curves_csv(result.history), "curves.csv")
        self.client.log_dict(run.info.run_id, result.model_dump(mode="json"), "result.json")
        self._tag(run, self._final_tags(result))
        self._end(run, _STATUS[result.state], result.finished_at)
        self._tag(run, {STATE_TAG: result.state})  # last: from now on the run is left alone
        self._runs.reread(run)

    def _log_metrics(
        self, run: Run, metrics: Mapping[str, float], step: int, timestamp_ms: int
    ) -> None:
        if metrics:
            self.client.log_batch(run.info.run_id, metrics=metric_rows(metrics, step, timestamp_ms))

    def _log_score_files(self, run: Run, scores: Sequence[BenchmarkScore]) -> None:
        for score in scores:
            for split in score.splits:
                folder = f"benchmarks/{score.benchmark.name}/{split.split}"
                self.client.log_text(
                    run.info.run_id, per_class_csv(split), f"{folder}/per_class.csv"
                )
                self.client.log_figure(
                    run.info.run_id, confusion_figure(split), f"{folder}/confusion.png"
                )

    def _log_parent_results(self, results: Sequence[TrialResult]) -> None:
        """The study's progress: the best objective after each finished trial, in the order of
        finishing.
        """
        run, config = self._runs.parent, self.record.info.config
        logged = int(run.data.metrics.get("num_finished", 0))
        best: list[TrialResult] = []
        for step, result in enumerate(
            sorted(results, key=lambda result: result.finished_at), start=1
        ):
            metrics: dict[str, float] = {"num_finished": step}
            best = best_first(config, [*best, result])[:1]
            if best[0].values:
                metrics[f"best/{self.record.objective.metric}"] = best[0].values[0]
            if step > logged:
                self._log_metrics(run, metrics, step, milliseconds(result.finished_at))
        self._log_baseline(run, Baseline.of(config.train))
        self._runs.reread(run)

    def _log_baseline(self, run: Run, baseline: Baseline) -> None:
        """The frozen CLIP's scores, beside those of what it is to be compared with."""
        for score in self.record.scores(baseline).read_all():
            clip = {f"frozen_clip/{key}": value for key, value in score.metrics.items()}
            if not clip.items() <= run.data.metrics.items():
                self._log_metrics(run, clip, 0, milliseconds(score.scored_at))

    def _final_tags(self, result: TrialResult) -> dict[str, Scalar]:
        tags: dict[str, Scalar] = {
            "vitaclip.reason": result.reason,
            "vitaclip.checkpoint": result.checkpoint,
        }
        trial = self.record.trial(result.number)
        if attempts := trial.attempts:
            tags["vitaclip.code"] = ", ".join(result.code)
            tags["mlflow.source.git.commit"] = attempts[-1].code.git_commit
        if result.history and "micro_batch_size" in result.history[-1]:
            tags["vitaclip.out_of_memory"] = (
                f"micro-batches of {result.history[-1]['micro_batch_size']:g}"
            )
        if trial.checkpoint_info:
            tags["vitaclip.backbone_sha256"] = trial.checkpoint_info.backbone_sha256
        return tags

    def _tag(self, run: Run, tags: Mapping[str, Scalar]) -> None:
        rows = [RunTag(key, value) for key, value in present(tags).items()]
        self.client.log_batch(run.info.run_id, tags=rows)

    def _end(self, run: Run, status: str, at: datetime | None = None) -> None:
        self.client.set_terminated(
            run.info.run_id, status, end_time=milliseconds(at) if at else None
        )


def _curve_rows(points: Sequence[CurvePoint], started_ms: int, ended_ms: int) -> list[Metric]:
    """Steps of one epoch, evenly over its time."""
    rows = []
    for index, point in enumerate(points, start=1):
        at_ms = started_ms + (ended_ms - started_ms) * index // len(points)
        rows += metric_rows({"step/loss": point.loss, "step/lr": point.lr}, point.step, at_ms)
    return rows


def _final_metrics(result: TrialResult) -> dict[str, float]:
    best = {f"best/{key}": value for key, value in result.metrics.items()}
    return {
        **best,
        **result.benchmarks,
        **{f"time/{key}": value for key, value in result.durations.items()},
    }
