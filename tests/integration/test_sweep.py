"""The command end to end: a real sweep on real Ray, killed half-way and continued; and input it
refuses.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.execution.cluster import num_cpus
from orchestrator.execution.preflight import study_inputs
from orchestrator.search.resolve import resolve
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.sweep import main
from orchestrator.yaml_file import load_study
from testing.mlflow_runs import runs_of
from testing.servers.s3_server import faulty_proxy, s3_server
from testing.sweeps import (
    PATIENCE_S,
    TRAIN_WORKER,
    TRIAL_ACTOR,
    Gate,
    check_closed_to_others,
    leftovers,
    ray_processes,
    start_sweep,
    untimed,
    wait_until,
)
from tests.integration.conftest import new_bucket
from vitaclip.data.datasets import load_dataset
from vitaclip.train import fit

STUDY = """\
name: motions
question: Does it run?
hypothesis: It does.
train:
  backbone: {name: quickstart-tiny, pretrained: quickstart}
  prompts: {num_global: 2}
  text: {num_context: 2}
  data: {dataset: motions, num_frames: 4, stride: 2, augment: {rand_augment: null}}
  epochs: 3
  batch_size: 8
  num_threads: 1
search_space:
  prompts.depth: {type: int, low: 1, high: num_layers}
  optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}
search: {num_trials: 4, lag: 2, sampler: {name: tpe, num_startup_trials: 2}}
benchmarks:
  - {dataset: motions, split: val, mode: zero_shot}
  - {dataset: motions, split: val, mode: supervised}
"""
NUM_TRIALS = 4


@pytest.fixture
def workplace(
    motion_dataset: str, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder of its own for store, tracking and temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "study.yaml").write_text(STUDY)
    # short: it holds Ray's sockets
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def results(workplace: Path) -> dict[str, bytes]:
    return {
        path.parent.name: path.read_bytes()
        for path in (workplace / "store").glob("*/trials/*/result.json")
    }


def checkpoints(workplace: Path) -> list[Path]:
    """Whole ones, of all trials."""
    return list((workplace / "store").glob("*/trials/*/checkpoints/*/*/manifest.json"))


def half_trained(workplace: Path) -> bool:
    """Some trial is finished, and some other one has a checkpoint but no result."""
    trials = (workplace / "store").glob("motions/trials/*")
    return bool(results(workplace)) and any(
        list(trial.glob("checkpoints/*/*/manifest.json")) and not (trial / "result.json").exists()
        for trial in trials
    )


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_killed_sweep_goes_on_and_every_trial_ends_once(workplace: Path) -> None:
    log, second_log = workplace / "log.txt", workplace / "log_2.txt"
    gate = Gate(workplace, r"/trials/0002/checkpoints/attempt-\d+/epoch-0002/")
    environment = os.environ | gate.environment | {"MLFLOW_TRACKING_PASSWORD": "only the driver's"}
    killed = start_sweep(workplace, log, environment)
    wait_until(lambda: checkpoints(workplace), killed, log)
    actor = ray_processes(killed, TRIAL_ACTOR)[0]
    assert "MLFLOW_TRACKING_PASSWORD" not in actor.environ()
    actor.kill()
    wait_until(lambda: gate.is_reached() and half_trained(workplace), killed, log)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    gate.open()
    before = results(workplace)
    assert 0 < len(before) < NUM_TRIALS

    exit_code = start_sweep(workplace, second_log, os.environ).wait(PATIENCE_S)

    output = second_log.read_text()
    assert exit_code == 0, output
    after = results(workplace)
    assert {number: after[number] for number in before} == before
    record = StudyRecord(open_store(str(workplace / "store")), "motions")
    assert [result.number for result in record.results()] == list(range(NUM_TRIALS))
    check_benchmarks(record)
    check_metrics_equal_plain_training(record)
    check_tracking(workplace, record)
    check_output(output, record)
    assert leftovers(Path(tempfile.gettempdir())) == []


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_S)
@pytest.mark.parametrize("name", ["seaweedfs", "ceph"])
def test_a_sweep_on_a_real_s3_server(
    workplace: Path, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(request.getfixturevalue(name), monkeypatch)
    monkeypatch.setenv("VITACLIP_STORE", f"s3://{bucket}/studies")
    log = workplace / "log.txt"
    options = ("--set", "search.num_trials=2", "--set", "train.epochs=1")
    assert start_sweep(workplace, log, os.environ, *options).wait(PATIENCE_S) == 0, log.read_text()
    record = StudyRecord(open_store(f"s3://{bucket}/studies"), "motions")
    assert [result.state for result in record.results()] == ["complete"] * 2


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_sweep_with_a_failing_store_a_broken_video_and_lost_trials_ends_as_it_should(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = Path(shutil.copytree(os.environ["VITACLIP_DATA_MOTIONS"], tmp_path / "videos"))
    (videos / "train_5.mp4").write_bytes(b"not a video")
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(videos))
    with s3_server() as server, faulty_proxy(server) as (behind, proxy):
        server.create_bucket("bucket")
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        record = StudyRecord(open_store("s3://bucket/prefix"), "motions")
        # before a checkpoint of trial 1: trial 0 comes to none
        gate = Gate(workplace, r"/tmp.*/checkpoint\.json")
        place = {"VITACLIP_STORE": "s3://bucket/prefix", **gate.environment}
        environment = {**os.environ, **behind.environment(), **place}
        proxy.share = 0.3
        # One slot and one benchmark: each process more takes seconds to start.
        settings = (
            "search.num_trials=2",
            "resources.max_concurrent_trials=1",
            "resources.max_failures=0",
            "benchmarks=[{dataset: motions, split: val, mode: supervised}]",
            "train.epochs=3",
            "train.data.max_broken=0.1",
            "search_space.optimizer.lr.high=1e30",
            "search.first_points=[{optimizer.lr: 1e30}, {optimizer.lr: 2e-3}]",
        )
        options = [word for setting in settings for word in ("--set", setting)]
        log = workplace / "log.txt"
        sweep = start_sweep(workplace, log, environment, *options)
        wait_until(gate.is_reached, sweep, log)
        os.kill(int(gate.reached_by()), signal.SIGTERM)
        gate.open()
        exit_code = sweep.wait(PATIENCE_S)
        proxy.share = 0.0

        assert exit_code == 0, log.read_text()
        assert "PreemptedError: stopped in epoch" in record.trial(1).log
        assert "Traceback" not in log.read_text()
        assert "ERROR" not in log.read_text()
        failed, complete = record.results()
        assert failed.state == "failed"
        assert "NonFiniteLossError" in str(failed.reason)
        assert complete.state == "complete"
        assert complete.metrics["data/broken"] == 1
        assert untimed(list(complete.history)) == untimed(
            list(fit(record.trial(1).info.train).history)
        )
    assert leftovers(Path(tempfile.gettempdir())) == []


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_trial_of_two_workers_goes_on_when_one_is_killed_and_when_one_is_preempted(
    workplace: Path,
) -> None:
    settings = (
        "resources.num_workers=[2,2]",
        "resources.max_concurrent_trials=1",
        "resources.max_failures=1",
        "search.num_trials=1",
        "benchmarks=[]",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    log, record = (
        workplace / "log.txt",
        StudyRecord(open_store(str(workplace / "store")), "motions"),
    )
    gate = Gate(workplace, "/attempt-0001/epoch-0002/")
    sweep = start_sweep(workplace, log, os.environ | gate.environment, *options)
    wait_until(gate.is_reached, sweep, log)
    ray_processes(sweep, TRAIN_WORKER)[0].kill()
    gate.close("/attempt-0002/epoch-0002/")
    wait_until(gate.is_reached, sweep, log)
    check_closed_to_others(sweep)
    ray_processes(sweep, TRAIN_WORKER)[-1].terminate()
    gate.open()

    assert sweep.wait(PATIENCE_S) == 0, log.read_text()
    (result,) = record.results()
    assert result.state == "complete"
    assert "PreemptedError: stopped in epoch" in record.trial(0).log
    assert log.read_text().count("trial 0 broke off and goes on from its last checkpoint") == 2
    alone = fit(record.trial(0).info.train).history
    for ours, theirs in zip(result.history, alone, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)
    assert leftovers(Path(tempfile.gettempdir())) == []


def check_benchmarks(record: StudyRecord) -> None:
    for result in record.results():
        assert result.state == "complete"
        assert {"zero_shot/motions/top1", "supervised/motions/top1"} <= result.benchmarks.keys()
        assert result.benchmarks["supervised/motions/top1"] == result.metrics["val/top1"]


def check_metrics_equal_plain_training(record: StudyRecord) -> None:
    """Bit for bit: what Ray, the faults and the resumption did must not show in the numbers."""
    for result in record.results():
        plain = fit(record.trial(result.number).info.train).history
        assert untimed(list(result.history)) == untimed(list(plain))


def check_tracking(workplace: Path, record: StudyRecord) -> None:
    client = MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    runs = runs_of(client, "motions")
    assert sorted(run.info.run_name for run in runs) == [
        "motions",
        *(f"trial {n:04d}" for n in range(NUM_TRIALS)),
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.info.run_name != "motions":
            steps = [
                metric.step for metric in client.get_metric_history(run.info.run_id, "val/top1")
            ]
            assert steps == [1, 2, 3]
            assert "zero_shot/motions/top1" in run.data.metrics


def check_output(output: str, record: StudyRecord) -> None:
    assert f"{NUM_TRIALS} trials, best first" in output
    assert "mlflow ui --backend-store-uri sqlite:///" in output
    assert len(output.splitlines()) < 40, output  # progress, not a wall of log lines
    best = max(record.results(), key=lambda result: result.values or ())
    rows = [line for line in output.splitlines() if "│" in line]
    assert rows[0].split("│")[1].strip() == str(best.number)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command that ends with code 2 before anything is started."""
    assert main(["study.yaml", *arguments]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.rglob("*"))
    assert main(["study.yaml", "--dry-run", "--set", "search.num_trials=7"]) == 0
    output = capsys.readouterr().out
    for part in (
        "Does it run?",
        "7, 0 of them finished",
        "prompts.depth",
        "high 4",
        "14 benchmark scores",
        "store",
    ):
        assert part in output
    assert sorted(workplace.rglob("*")) == before


def test_bad_values_and_spaces_end_with_code_2(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean 'epochs'" in refused(capsys, "--set", "train.epoch=3")
    space = "search_space={prompts.dept: {type: int, low: 0, high: 1}}"
    assert "did you mean 'prompts.depth'" in refused(capsys, "--set", space)
    assert "no such file" in refused(capsys, "--overlay", "absent.yaml")


def test_an_mlflow_that_does_not_answer_is_refused_at_once(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9" in refused(capsys)


def test_a_store_that_cannot_be_written_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "file").write_text("")
    monkeypatch.setenv("VITACLIP_STORE", str(workplace / "file" / "store"))
    assert "VITACLIP_STORE" in refused(capsys)


def test_datasets_backbones_and_sizes_are_checked(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "split 'vall'" in refused(
        capsys, "--set", "benchmarks=[{dataset: motions, split: vall, mode: zero_shot}]"
    )
    assert "did you mean" in refused(capsys, "--set", "train.backbone.name=quickstart-tin")
    assert "VITACLIP_DATA_ABSENT" in refused(capsys, "--set", "train.data.dataset=absent")
    many = ["--set", "resources.max_concurrent_trials=999", "--set", "search.lag=999"]
    assert f"need 999 CPU (1 each), found {num_cpus()} in this machine" in refused(capsys, *many)


def test_a_changed_study_is_refused_and_the_difference_named(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = StudyRecord(open_store(str(workplace / "store")), "motions")
    config = resolve(load_study(Path("study.yaml")))
    record.create_or_check(config, {}, study_inputs(config))
    message = refused(capsys, "--set", "train.epochs=4")
    assert "train.epochs" in message
    assert "another name" in message
    assert (
        json.loads((workplace / "store/motions/study.json").read_text())["config"]["train"][
            "epochs"
        ]
        == 3
    )


def test_other_data_under_a_study_is_refused_and_the_difference_named(
    workplace: Path,
    motion_dataset: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = resolve(load_study(Path("study.yaml")))
    record = StudyRecord(open_store(str(workplace / "store")), "motions")
    record.create_or_check(config, {}, study_inputs(config))
    source = Path(load_dataset(motion_dataset, "val").clips[0].path).parent
    shutil.copytree(source, workplace / "data", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(workplace / "data"))
    rows = (workplace / "data/train.csv").read_text().splitlines()
    (workplace / "data/train.csv").write_text("\n".join(rows[1:]))
    message = refused(capsys)
    assert (
        "dataset motions/train: its clips or labels are others (24 clips were recorded, found 23)"
        in message
    )
    assert record.trials() == []
