"""What every tracking service must show of a study, whichever the settings choose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator import sync
from orchestrator.search.study import Study
from orchestrator.settings import Settings
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.observer import TrackingObserver
from orchestrator.tracking.service import TrackingService, open_service
from orchestrator.tracking.wandb.offline import logged_runs
from testing.counting_store import CountingStore
from testing.mlflow_runs import runs_of
from testing.study_fixtures import (
    ZERO_SHOT,
    finish,
    new_record,
    propose,
    run_trial,
    split_score,
    study_config,
    train_epochs,
    write_score,
)
from vitaclip.errors import InputError


@dataclass
class ShownTrial:
    """What a service shows of one trial."""

    learning_rate: float
    curve: list[tuple[int, float]]
    steps: list[int]
    metrics: dict[str, float]
    state: str | None
    is_open: bool


class Reader(Protocol):
    """Reads back what a service was told."""

    def trials(self) -> dict[int, ShownTrial]:
        """By number."""

    def study_metrics(self) -> dict[str, float]:
        """Of the study's own run."""

    def has_report(self) -> bool:
        """Whether a report was added."""


class MlflowReader:
    """Asks MLflow's client."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(uri)

    def _runs(self, kind: str) -> list[Run]:
        return [
            run
            for run in runs_of(self._client, "depth")
            if (run.data.tags["vitaclip.trial"] == "study") == (kind == "study")
        ]

    def _points(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        points = self._client.get_metric_history(run_id, metric)
        return sorted((point.step, point.value) for point in points)

    def trials(self) -> dict[int, ShownTrial]:
        return {
            int(run.data.tags["vitaclip.trial"]): ShownTrial(
                float(run.data.params["optimizer.lr"]),
                self._points(run.info.run_id, "val/top1"),
                [step for step, _ in self._points(run.info.run_id, "step/loss")],
                run.data.metrics,
                run.data.tags.get("vitaclip.state"),
                run.info.status == "RUNNING",
            )
            for run in self._runs("trial")
        }

    def study_metrics(self) -> dict[str, float]:
        return dict(self._runs("study")[0].data.metrics)

    def has_report(self) -> bool:
        run = self._runs("study")[0]
        return bool(self._client.list_artifacts(run.info.run_id, "report"))


class WandbReader:
    """Reads W&B's offline files."""

    def __init__(self, folder: Path, record: StudyRecord) -> None:
        self._folder = folder
        self._prefix = f"{record.info.id[:16]}-"

    def trials(self) -> dict[int, ShownTrial]:
        runs = logged_runs(self._folder, self._prefix)
        return {
            int(name.removeprefix(self._prefix)): ShownTrial(
                run.config["optimizer.lr"],
                [(row["epoch"], row["val/top1"]) for row in run.history if "val/top1" in row],
                [row["step"] for row in run.history if "step/loss" in row],
                run.summary,
                run.summary.get("state"),
                run.exit_code is None,
            )
            for name, run in runs.items()
            if not name.endswith("-study")
        }

    def study_metrics(self) -> dict[str, float]:
        return logged_runs(self._folder, self._prefix)[f"{self._prefix}study"].summary

    def has_report(self) -> bool:
        return any(b"report-depth" in path.read_bytes() for path in self._folder.rglob("*.wandb"))


@pytest.fixture(params=["mlflow", "wandb"])
def service(
    request: pytest.FixtureRequest,
    mlflow_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> TrackingService:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("VITACLIP_TRACKER", request.param)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    found = open_service(Settings())
    found.check()
    return found


@pytest.fixture
def reader(
    service: TrackingService, record: StudyRecord, mlflow_uri: str, tmp_path: Path
) -> Reader:
    if service.name == "MLflow":
        return MlflowReader(mlflow_uri)
    return WandbReader(tmp_path, record)


def observe(service: TrackingService, record: StudyRecord) -> TrackingObserver:
    observer = TrackingObserver(service, record, close_timeout_s=600)
    observer.opened(Study(record.info.config, record))
    return observer


def test_a_running_study_is_shown_as_it_goes(
    service: TrackingService, record: StudyRecord, reader: Reader, tmp_path: Path
) -> None:
    observer = observe(service, record)
    trial = propose(record, 0)
    observer.started(trial)
    for num_epochs in (1, 2, 3):
        train_epochs(record, trial, tmp_path / "c", *(0.2, 0.6, 0.5)[:num_epochs])
        observer.epoch_ended(0, {})
    observer.training_ended(0, "complete")
    write_score(record, Baseline.of(trial.train), split_score([0, 0, 0], [0, 1, 2]))
    observer.finished(finish(record, trial, "complete", 0.2, 0.6, 0.5))
    observer.finished(run_trial(record, 1, tmp_path / "c", 0.1, state="pruned"))
    observer.finished(finish(record, propose(record, 2), "failed"))
    observer.closed()

    assert observer.delivered
    shown = reader.trials()
    assert {number: trial.state for number, trial in shown.items()} == {
        0: "complete",
        1: "pruned",
        2: "failed",
    }
    assert not any(trial.is_open for trial in shown.values())
    assert shown[0].learning_rate == 1e-3
    assert shown[0].curve == [(1, 0.2), (2, 0.6), (3, 0.5)]
    assert shown[0].steps == [1, 2, 3, 4, 5, 6]
    assert shown[0].metrics["best/val/top1"] == 0.6
    assert shown[0].metrics["zero_shot/quickstart/top1"] == pytest.approx(2 / 3)
    assert shown[0].metrics["frozen_clip/zero_shot/quickstart/top1"] == pytest.approx(1 / 3)
    assert reader.study_metrics()["num_finished"] == 3
    assert reader.study_metrics()["best/val/top1"] == 0.6


def test_from_its_end_to_the_service_a_trials_checkpoint_is_asked_once(
    service: TrackingService, reader: Reader, tmp_path: Path
) -> None:
    store = CountingStore(tmp_path / "store")
    driver = new_record(store)
    writer, study = service.writer(driver), Study(driver.info.config, driver)
    writer.reconcile()
    trial = study.next_trial()
    assert isinstance(trial, TrialInfo)
    worker = StudyRecord(LocalStore(tmp_path / "store"), "depth")
    train_epochs(worker, trial, tmp_path / "c", 0.2, 0.6, 0.5)
    store.forget()

    study.training_ended(0)
    write_score(worker, 0, split_score([0, 1], [0, 1]))
    result = study.finish(0)
    writer.log_finished(0)
    assert result.checkpoint is not None
    assert result.checkpoint.endswith("epoch-0002")  # not the newest
    assert store.fetched["checkpoint.json"] == 1
    writer.stop()
    assert reader.trials()[0].curve == [(1, 0.2), (2, 0.6), (3, 0.5)]


def test_everything_appears_once_however_often_it_is_told(
    service: TrackingService, record: StudyRecord, reader: Reader, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "c", 0.2)
    run_trial(record, 1, tmp_path / "c", 0.4, 0.3)
    for _ in range(2):  # a driver that dies, and its successor
        writer = service.writer(record)
        writer.reconcile()
        writer.stop()
    train_epochs(record, trial, tmp_path / "c", 0.2, 0.3)
    for _ in range(2):
        observer = observe(service, record)
        observer.epoch_ended(0, {})
        observer.epoch_ended(0, {})
        observer.closed()

    shown = reader.trials()
    assert shown[0].curve == [(1, 0.2), (2, 0.3)]
    assert shown[0].steps == [1, 2, 3, 4]
    assert shown[0].state is None
    assert shown[1].curve == [(1, 0.4), (2, 0.3)]
    assert shown[1].state == "complete"


def test_later_scores_and_a_report_are_added(
    service: TrackingService, record: StudyRecord, reader: Reader, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    record.add_change(ControlChange(num_trials=1))
    writer = service.writer(record)
    writer.reconcile()
    writer.stop()
    benchmark = ZERO_SHOT | {"views": {"num_temporal_views": 4}}
    config = study_config(benchmarks=[benchmark])
    score, now = split_score([0, 0, 0, 0], [0, 1, 1, 1]), datetime.now(UTC)
    write_score(record, 0, score, config.benchmarks[0], scored_at=now)
    service.writer(record).log_scores([0])
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<p>all of it</p>")
    assert service.writer(record).log_report(tmp_path / "report")

    shown = reader.trials()[0]
    assert shown.metrics["zero_shot/quickstart/top1"] == 0.25
    assert shown.curve == [(1, 0.2), (2, 0.6)]
    assert reader.has_report()


def test_scores_and_reports_make_no_study_that_the_service_lacks(
    service: TrackingService, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2)
    (tmp_path / "report").mkdir()
    service.writer(record).log_scores([0])
    assert not service.writer(record).log_report(tmp_path / "report")
    assert not list(tmp_path.glob("wandb/offline-run-*"))


def test_sync_delivers_what_a_sweep_could_not(
    service: TrackingService,
    record: StudyRecord,
    reader: Reader,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    assert sync.main(["depth"]) == 0
    assert f"1 trials are in {service.name}" in capsys.readouterr().out
    assert reader.trials()[0].curve == [(1, 0.2), (2, 0.6)]


def test_each_service_says_how_to_compare(service: TrackingService, record: StudyRecord) -> None:
    writer = service.writer(record)
    writer.reconcile()
    writer.stop()
    line = service.how_to_compare(record)
    assert "/runs" in line if service.name == "MLflow" else "wandb sync" in line


def test_an_unknown_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITACLIP_TRACKER", "tensorboard")
    message = "VITACLIP_TRACKER: found 'tensorboard', allowed are 'mlflow' or 'wandb'"
    with pytest.raises(InputError, match=message):
        open_service(Settings())


def test_wandb_needs_a_key_or_the_offline_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("VITACLIP_TRACKER", "wandb")
    with pytest.raises(InputError, match="found no API key; set WANDB_API_KEY"):
        open_service(Settings()).check()


def test_wandb_needs_a_folder_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("VITACLIP_TRACKER", "wandb")
    with pytest.raises(InputError, match="WANDB_DIR: the folder .* cannot be written"):
        open_service(Settings()).check()
