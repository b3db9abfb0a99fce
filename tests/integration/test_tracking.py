"""MLflow as a view: real SQLite, real server, and every way of losing it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator import ls, report, show, sync
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.execution.worker import Job, PreemptedError, train_worker
from orchestrator.search.study import Study
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow import writer as writer_module
from orchestrator.tracking.mlflow.client import check_tracking
from orchestrator.tracking.mlflow.service import MlflowService
from orchestrator.tracking.mlflow.writer import MlflowWriter
from orchestrator.tracking.observer import TrackingObserver
from testing import mlflow_runs
from testing.servers.mlflow_server import MlflowServer
from testing.servers.s3_server import FaultyProxy, S3Server, faulty_proxy, s3_server
from testing.study_fixtures import (
    INPUTS,
    PROVENANCE,
    STARTED,
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
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError


@pytest.fixture
def uri(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return mlflow_uri


def runs_of(uri: str, study: str = "depth") -> dict[str, Run]:
    runs = mlflow_runs.runs_of(MlflowClient(uri), study)
    names = [run.data.tags["mlflow.runName"] for run in runs]
    assert len(set(names)) == len(names)
    return dict(zip(names, runs, strict=True))


def steps_of(uri: str, run: Run, metric: str) -> list[tuple[int, float]]:
    points = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def opened(uri: str, record: StudyRecord, close_timeout_s: float = 600) -> TrackingObserver:
    """An observer that brings MLflow up to the record, and waits for events."""
    tracking = TrackingObserver(MlflowService(uri), record, close_timeout_s)
    tracking.opened(Study(record.info.config, record))
    return tracking


def artifacts_of(uri: str, run: Run, folder: str | None = None) -> set[str]:
    return {item.path for item in MlflowClient(uri).list_artifacts(run.info.run_id, folder)}


def test_a_study_reads_as_parent_and_children(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6, 0.5)
    run_trial(record, 1, tmp_path / "c", 0.1, state="pruned")
    finish(record, propose(record, 2), "failed")
    tracking = opened(uri, record)
    tracking.closed()
    assert tracking.delivered

    runs = runs_of(uri)
    parent, complete, pruned, failed = (
        runs[name] for name in ("depth", "trial 0000", "trial 0001", "trial 0002")
    )
    assert [run.info.status for run in (parent, complete, pruned, failed)] == ["FINISHED"] * 3 + [
        "FAILED"
    ]
    assert {run.data.tags.get("mlflow.parentRunId") for run in (complete, pruned, failed)} == {
        parent.info.run_id
    }
    assert pruned.data.tags["vitaclip.state"] == "pruned"
    assert (
        parent.data.tags["mlflow.source.git.commit"]
        == complete.data.tags["vitaclip.git_commit"]
        == "abc123"
    )
    commit = record.trial(0).attempts[0].code.git_commit
    assert complete.data.tags["mlflow.source.git.commit"] == (commit or "abc123")
    assert (
        complete.data.tags["search.prompts.depth"] == complete.data.params["prompts.depth"] == "0"
    )
    assert complete.data.params["optimizer.lr"] == "0.001"
    assert complete.data.params["prompts.local"] == "true"
    assert steps_of(uri, complete, "val/top1") == [(1, 0.2), (2, 0.6), (3, 0.5)]
    assert steps_of(uri, pruned, "step/loss") == [(1, 1.0), (2, 0.5)]
    assert complete.data.metrics["best/val/top1"] == 0.6
    assert complete.data.metrics["zero_shot/quickstart/top1"] == pytest.approx(2 / 3)
    assert steps_of(uri, parent, "best/val/top1") == [(1, 0.6), (2, 0.6), (3, 0.6)]
    assert {"result.json", "config.yaml", "curves.csv"} <= artifacts_of(uri, complete)
    curves = mlflow.artifacts.load_text(f"{complete.info.artifact_uri}/curves.csv").splitlines()
    top1 = curves[0].split(",").index("val/top1")
    assert [float(row.split(",")[top1]) for row in curves[1:]] == [0.2, 0.6, 0.5]
    assert {"study.yaml", "environment.yaml"} <= artifacts_of(uri, parent)
    assert complete.inputs is not None
    assert [data.dataset.name for data in complete.inputs.dataset_inputs] == ["quickstart/train"]
    assert complete.data.tags["vitaclip.backbone_sha256"] == "0" * 64
    folder = "benchmarks/zero_shot/quickstart/zero_shot"
    assert artifacts_of(uri, complete, folder) == {
        f"{folder}/per_class.csv",
        f"{folder}/confusion.png",
    }


def test_reconciling_again_adds_nothing(uri: str, record: StudyRecord, tmp_path: Path) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    trial = propose(record, 1)
    train_epochs(record, trial, tmp_path / "c", 0.3)
    for _ in range(2):
        MlflowWriter(uri, record).reconcile()
    train_epochs(record, trial, tmp_path / "c", 0.3, 0.4)
    for _ in range(2):
        MlflowWriter(uri, record).reconcile()
    runs = runs_of(uri)
    assert len(runs) == 3
    assert steps_of(uri, runs["trial 0000"], "val/top1") == [(1, 0.2), (2, 0.6)]
    assert steps_of(uri, runs["trial 0001"], "val/top1") == [(1, 0.3), (2, 0.4)]
    assert runs["trial 0001"].info.status == "RUNNING"


def test_every_optimizer_step_is_logged_once(
    uri: str, small_training: dict[str, Any], tmp_path: Path
) -> None:
    """Two trials of the same training, one of them taken away in the middle of its second epoch."""
    train = small_training | {"epochs": 3}
    record = new_record(LocalStore(tmp_path / "store"), train=train)
    for number in (0, 1):
        config = TrainConfig.model_validate(train)
        record.write_trial(TrialInfo(number=number, params={}, train=config, proposed_at=STARTED))

    def train_trial(number: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        job = Job(record.store.uri, record.name, number)
        train_worker(job, lambda _: MlflowWriter(uri, record).reconcile(), should_stop)

    train_trial(0)
    steps = itertools.count(1)
    with pytest.raises(PreemptedError):
        train_trial(1, lambda: next(steps) == 5)
    MlflowWriter(uri, record).reconcile()
    train_trial(1)
    MlflowWriter(uri, record).reconcile()
    whole, resumed = (runs_of(uri)[name] for name in ("trial 0000", "trial 0001"))
    for metric in ("step/loss", "step/lr"):
        assert [step for step, _ in steps_of(uri, whole, metric)] == list(range(1, 10))
        assert steps_of(uri, resumed, metric) == steps_of(uri, whole, metric)
    assert [step for step, _ in steps_of(uri, resumed, "train/loss")] == [1, 2, 3]
    points = MlflowClient(uri).get_metric_history(whole.info.run_id, "step/loss")
    losses = [point.value for point in points]
    assert losses == [point.loss for point in record.trial(0).progress.curve]
    assert sorted(point.timestamp for point in points) == [point.timestamp for point in points]


def test_a_score_by_another_protocol_replaces_the_old_one(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    MlflowWriter(uri, record).reconcile()
    protocol = ZeroShot.model_validate(ZERO_SHOT | {"views": {"num_temporal_views": 4}})
    later = datetime.now(UTC)
    write_score(record, 0, split_score([0, 0, 0, 0], [0, 1, 1, 1]), protocol, scored_at=later)
    for _ in range(2):
        MlflowWriter(uri, record).log_scores([0])
    run = runs_of(uri)["trial 0000"]
    assert run.data.metrics["zero_shot/quickstart/top1"] == 0.25
    assert steps_of(uri, run, "zero_shot/quickstart/top1") == [(2, 0.25), (2, pytest.approx(2 / 3))]


def test_an_interrupted_study_is_killed_and_goes_on(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "c", 0.3)
    tracking = opened(uri, record)
    tracking.closed()
    assert tracking.delivered
    assert {run.info.status for run in runs_of(uri).values()} == {"KILLED"}

    tracking = opened(uri, record)
    train_epochs(record, trial, tmp_path / "c", 0.3, 0.4)
    tracking.epoch_ended(0, {})
    tracking.finished(finish(record, trial, "complete", 0.3, 0.4))
    run_trial(record, 1, tmp_path / "c", 0.5)
    run_trial(record, 2, tmp_path / "c", 0.5)
    tracking.closed()
    assert tracking.delivered
    runs = runs_of(uri)
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert steps_of(uri, runs["trial 0000"], "val/top1") == [(1, 0.3), (2, 0.4)]


@pytest.mark.parametrize(
    ("states", "search", "num_trials", "status", "registered"),
    [
        (["complete"] * 3, {}, None, "FINISHED", True),
        (["complete"] * 3, {}, 4, "KILLED", False),
        (["complete"] * 2, {}, 2, "FINISHED", True),
        (["complete"] * 2, {}, None, "KILLED", False),
        (["complete"] * 2, {"max_wall_hours": 1e-9}, None, "FINISHED", True),
        (["failed", "pruned", "failed"], {}, None, "FINISHED", True),
        (["failed"] * 2, {"max_first_failures": 1}, None, "FAILED", False),
    ],
)
def test_a_study_ends_as_it_was_told(
    uri: str,
    tmp_path: Path,
    states: list[str],
    search: dict[str, int],
    num_trials: int | None,
    status: str,
    registered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registrations: list[int] = []
    monkeypatch.setattr(
        writer_module, "register_best", lambda *a: registrations.append(a[2].number)
    )
    record = new_record(LocalStore(tmp_path / "store"), search={"num_trials": 3, "lag": 2} | search)
    for number, state in enumerate(states):
        run_trial(record, number, tmp_path / "c", 0.9 - number / 10, state=state)
    record.add_change(ControlChange(num_trials=num_trials))
    writer = MlflowWriter(uri, record)
    writer.reconcile()
    writer.stop()
    parent = runs_of(uri)["depth"]
    assert parent.info.status == status
    assert registrations == (
        [next(n for n, s in enumerate(states) if s != "failed")] if registered else []
    )
    best = [value for _, value in steps_of(uri, parent, "best/val/top1")]
    expected = [0.9 - n / 10 for n, s in enumerate(states) if s != "failed"]
    assert best[:1] == pytest.approx(expected[:1])


def test_a_run_created_twice_is_kept_once(uri: str, record: StudyRecord, tmp_path: Path) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2)
    writer = MlflowWriter(uri, record)
    writer.reconcile()
    first = runs_of(uri)["trial 0000"]
    writer.client.create_run(first.info.experiment_id, tags=first.data.tags, start_time=2**42)
    MlflowWriter(uri, record).reconcile()
    assert runs_of(uri)["trial 0000"].info.run_id == first.info.run_id


@pytest.mark.parametrize("for_good", [False, True])
def test_children_follow_a_parent_that_was_deleted(
    uri: str, record: StudyRecord, tmp_path: Path, for_good: bool
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2)
    train_epochs(record, propose(record, 1), tmp_path / "c", 0.3)
    MlflowWriter(uri, record).reconcile()
    old, client = runs_of(uri)["depth"], MlflowClient(uri)
    client.delete_run(old.info.run_id)
    if for_good:  # as `mlflow gc` does
        client._tracking_client.store._hard_delete_run(old.info.run_id)
    MlflowWriter(uri, record).reconcile()
    runs = runs_of(uri)
    parent = runs.pop("depth")
    assert (parent.info.run_id == old.info.run_id) == (not for_good)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert len(runs) == 2


def test_a_trial_that_was_deleted_comes_back_whole(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    MlflowWriter(uri, record).reconcile()
    MlflowClient(uri).delete_run(runs_of(uri)["trial 0000"].info.run_id)
    MlflowWriter(uri, record).reconcile()
    assert steps_of(uri, runs_of(uri)["trial 0000"], "val/top1") == [(1, 0.2), (2, 0.6)]


def test_a_renamed_experiment_stays_the_studys(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2)
    MlflowWriter(uri, record).reconcile()
    client = MlflowClient(uri)
    experiment = mlflow_runs.experiment_of(client, "depth")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    client.rename_experiment(experiment.experiment_id, "depth, first try")
    run_trial(record, 1, tmp_path / "c", 0.2)
    MlflowWriter(uri, record).reconcile()
    assert client.get_experiment_by_name("depth") is None
    assert len(runs_of(uri, "depth, first try")) == 3


def test_the_parent_tells_of_the_last_start(uri: str, record: StudyRecord) -> None:
    MlflowWriter(uri, record).reconcile()
    config = study_config(
        question="How deep, really?", search={"num_trials": 9}, resources={"max_failures": 5}
    )
    record.create_or_check(config, PROVENANCE, INPUTS)
    MlflowWriter(uri, record).reconcile()
    parent = runs_of(uri)["depth"]
    assert (
        parent.data.tags["study.search.num_trials"],
        parent.data.tags["study.resources.max_failures"],
    ) == ("9", "5")
    assert not {"search.num_trials", "resources.max_failures"} & parent.data.params.keys()
    assert parent.data.params["search.lag"] == "4"
    assert "How deep, really?" in parent.data.tags["mlflow.note.content"]
    assert "num_trials: 9" in mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/study.yaml")
    assert parent.info.user_id == parent.data.tags["mlflow.user"] != "unknown"


def test_a_new_study_of_the_same_name_gets_new_runs(
    uri: str, record: StudyRecord, tmp_path: Path
) -> None:
    run_trial(record, 0, tmp_path / "c", 0.2)
    MlflowWriter(uri, record).reconcile()
    other = new_record(LocalStore(tmp_path / "other"))
    run_trial(other, 0, tmp_path / "c", 0.9)
    MlflowWriter(uri, other).reconcile()
    assert len(mlflow_runs.runs_of(MlflowClient(uri), "depth")) == 4


def test_nobody_listening_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:hunter2@127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as caught:
            check_tracking(address)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        check_tracking(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: bytes
) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database)
    server = MlflowServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def failing(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, FaultyProxy]]:
    """The server's address through a proxy, and the proxy."""
    monkeypatch.setattr("orchestrator.tracking.observer._FIRST_DELAY_S", 0.05)
    monkeypatch.setattr("orchestrator.tracking.observer._LAST_DELAY_S", 0.5)
    with faulty_proxy(S3Server(server.uri, "", ""), faults=("lost_answer",)) as (direct, proxy):
        yield direct.endpoint_url, proxy


def test_an_outage_and_lost_answers_cost_nothing(
    server: MlflowServer, failing: tuple[str, FaultyProxy], tmp_path: Path
) -> None:
    record = new_record(LocalStore(tmp_path / "store"), name="outage")
    uri, proxy = failing
    tracking = opened(uri, record)
    trial = propose(record, 0)
    for num_epochs in range(1, 9):
        top1 = [epoch / 10 for epoch in range(num_epochs)]
        train_epochs(record, trial, tmp_path / "c", *top1)
        tracking.epoch_ended(0, {})
        proxy.share, proxy.faults = (
            (1.0, ("cut_upload",)) if 3 <= num_epochs < 6 else (0.1, ("lost_answer",))
        )
        time.sleep(0.2)
        while num_epochs == 5 and "cut_upload" not in proxy.counts:
            time.sleep(0.05)  # on a busy machine the outage lasts until a request has met it
    tracking.finished(finish(record, trial, "complete", *top1))
    for number in (1, 2):
        tracking.finished(run_trial(record, number, tmp_path / "c", 0.5, 0.6))
    tracking.closed()
    assert tracking.delivered
    assert proxy.counts["lost_answer"] > 0
    assert proxy.counts["cut_upload"] > 0
    runs = runs_of(server.uri, "outage")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert len(runs) == 4
    assert steps_of(server.uri, runs["trial 0000"], "val/top1") == [
        (n + 1, n / 10) for n in range(8)
    ]
    assert [step for step, _ in steps_of(server.uri, runs["trial 0000"], "step/loss")] == list(
        range(1, 17)
    )
    assert steps_of(server.uri, runs["trial 0002"], "val/top1") == [(1, 0.5), (2, 0.6)]
    assert steps_of(server.uri, runs["outage"], "num_finished") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_training_never_waits_and_sync_delivers_later(
    failing: tuple[str, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = new_record(LocalStore(tmp_path / "store"), name="away")
    uri, proxy = failing
    proxy.share, proxy.faults = 1.0, ("cut_upload",)
    monkeypatch.setattr("orchestrator.tracking.observer._MAX_WAITING", 3)
    tracking = opened(uri, record, close_timeout_s=0.5)
    for number in range(3):
        result = run_trial(record, number, tmp_path / "c", 0.2, 0.6)
        for _ in range(10):
            tracking.epoch_ended(number, {})
        tracking.finished(result)
    tracking.closed()
    assert not tracking.delivered
    proxy.share = 0.0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("VITACLIP_STORE", record.store.uri)
    assert sync.main(["away"]) == 0
    runs = runs_of(uri, "away")
    assert len(runs) == 4
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert steps_of(uri, runs["trial 0001"], "val/top1") == [(1, 0.2), (2, 0.6)]


def test_a_server_with_users_and_tls(
    record: StudyRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    guarded = MlflowServer(tmp_path)
    certificate = guarded.guard("ada", "planted-password")
    guarded.start()
    monkeypatch.setenv("VITACLIP_STORE", record.store.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-password")
    try:
        assert sync.main(["depth"]) == 2
        assert "certificate" in capsys.readouterr().err
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
        assert sync.main(["depth"]) == 0
        assert steps_of(guarded.uri, runs_of(guarded.uri)["trial 0000"], "val/top1") == [
            (1, 0.2),
            (2, 0.6),
        ]
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password")
        assert sync.main(["depth"]) == 2
        refused = capsys.readouterr().err
    finally:
        guarded.kill()
    assert "401" in refused
    assert "MLFLOW_TRACKING_USERNAME" in refused
    assert "wrong-password" not in refused


def test_no_secret_is_written_anywhere(
    server: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Store on S3, MLflow with a password in its address, both also failing; then everything is
    searched.
    """
    caplog.set_level(logging.DEBUG, "orchestrator")
    monkeypatch.chdir(tmp_path)
    with s3_server() as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        client = boto3.session.Session().client(
            "s3", endpoint_url=s3.endpoint_url, region_name="us-east-1"
        )
        client.create_bucket(Bucket="secrets")
        monkeypatch.setenv("VITACLIP_STORE", "s3://secrets/store")
        uri = server.uri.replace("http://", "http://user:planted%21password@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        record = new_record(
            open_store("s3://secrets/store"), name="secrets", search={"num_trials": 1}
        )
        run_trial(record, 0, tmp_path / "c", 0.2)
        assert sync.main(["secrets"]) == 0
        assert report.main(["secrets"]) == 0
        assert show.main(["secrets", "--json"]) == 0
        with faulty_proxy(s3, share=1.0, faults=("access_denied",)) as (failing, _):
            monkeypatch.setenv("S3_ENDPOINT_URL", failing.endpoint_url)
            assert ls.main([]) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:planted%21password@127.0.0.1:9")
        assert sync.main(["secrets"]) == 2
        with faulty_proxy(S3Server(server.uri, "", ""), share=1.0, faults=("cut_upload",)) as (
            away,
            _,
        ):
            tracking = opened(
                away.endpoint_url.replace("http://", "http://user:planted%21password@"),
                record,
                close_timeout_s=2,
            )
            tracking.closed()
            assert not tracking.delivered
        objects = client.list_objects_v2(Bucket="secrets")["Contents"]
        stored = [
            client.get_object(Bucket="secrets", Key=item["Key"])["Body"].read() for item in objects
        ]
    written = [
        path.read_bytes()
        for root in (tmp_path, server.folder)
        for path in root.rglob("*")
        if path.is_file()
    ]
    shown = "".join(capfd.readouterr()) + caplog.text
    assert "fails" in shown
    assert len(stored) == 7
    for secret in (s3.secret_key, "planted%21password", "planted!password"):
        assert secret not in shown
        assert not any(secret.encode() in content for content in stored + written)
        assert not any(secret in command_line for command_line in command_lines())


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text(errors="replace"))
    return lines
