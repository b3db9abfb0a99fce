"""A sweep as a job on a running cluster: submitted with the token, stopped, submitted again,
continued.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.execution.lease import Lease
from orchestrator.monitoring.prometheus import GAUGES
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.paths import ROOT
from testing.servers.ray_cluster import RayCluster
from testing.sweeps import PATIENCE_S, Gate
from tests.integration.test_sweep import NUM_TRIALS, STUDY, half_trained, results

pytestmark = pytest.mark.slow  # a real cluster, stopped and resubmitted: minutes on two busy cores


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder,
        RayCluster(Path(folder)) as running,
    ):
        # two for the trials and one for their benchmarks, which would else wait until all have
        # trained
        running.start_node("--num-cpus", "3", environment={"RAY_metrics_report_interval_ms": "500"})
        yield running


@pytest.fixture
def workplace(motion_dataset: str, tmp_path: Path) -> Path:
    """The study's file, and the runtime environment that carries its settings."""
    (tmp_path / "study.yaml").write_text(STUDY)
    environment = yaml.safe_load((ROOT / "infra/job.yaml").read_text())
    environment["env_vars"] |= {
        **Gate(tmp_path, r"/trials/0003/checkpoints/attempt-\d+/epoch-0002/").environment,
        "VITACLIP_STORE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        **{name: value for name, value in os.environ.items() if name.startswith("VITACLIP_")},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(environment))
    return tmp_path


def submit(cluster: RayCluster, workplace: Path, name: str, *options: str) -> tuple[int, str]:
    settings = (
        "--working-dir",
        ROOT,
        "--runtime-env",
        workplace / "job.yaml",
        "--submission-id",
        name,
    )
    command = ("python", "-m", "orchestrator.sweep", workplace / "study.yaml")
    done = cluster.run("submit", *settings, *options, "--", *command)
    return done.returncode, done.stdout + done.stderr


def wait_until(
    condition: Callable[[], object], log: Callable[[], str], timeout_s: float = PATIENCE_S
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, log()
        time.sleep(0.1)


def test_a_stopped_job_ends_cleanly_and_submitting_again_continues_it(
    cluster: RayCluster, workplace: Path
) -> None:
    code, output = submit(cluster, workplace, "first", "--no-wait")
    assert code == 0, output
    wait_until(lambda: half_trained(workplace), lambda: cluster.run("logs", "first").stdout)
    stopped = cluster.run("stop", "first")
    assert "was stopped" in stopped.stdout + stopped.stderr
    (workplace / "gate").unlink()
    before = results(workplace)
    assert 0 < len(before) < NUM_TRIALS
    assert "interrupted; the same command goes on from here" in cluster.run("logs", "first").stdout
    check_upload(cluster)
    check_refusal(cluster)
    store = open_store(str(workplace / "store"))
    with Lease(store, "motions"):  # given back: no wait for a dead driver
        pass

    code, output = submit(cluster, workplace, "second", "--no-wait")
    assert code == 0, output
    seen: set[str] = set()

    def second_finished() -> bool:
        seen.update(published_metrics(cluster))
        return finished(cluster, "second")

    wait_until(second_finished, lambda: str(seen))

    output = cluster.run("logs", "second").stdout
    assert "SUCCEEDED" in cluster.run("list").stdout, output
    assert seen == set(GAUGES)
    assert not any(f"trial {int(number)} starts" in output for number in before), (
        "a finished trial ran again"
    )
    after = results(workplace)
    assert {number: after[number] for number in before} == before
    found = StudyRecord(store, "motions").results()
    assert [(result.number, result.state) for result in found] == [
        (n, "complete") for n in range(NUM_TRIALS)
    ]


def finished(cluster: RayCluster, name: str) -> bool:
    status = cluster.run("status", name)
    return "succeeded" in (text := status.stdout + status.stderr) or "failed" in text


def published_metrics(cluster: RayCluster) -> set[str]:
    """Names of ours on the node's metrics port."""
    url = f"http://127.0.0.2:{cluster.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return set(re.findall(r"^ray_vitaclip_(\w+)\{", answer.read().decode(), re.MULTILINE))


def check_upload(cluster: RayCluster) -> None:
    """The working directory holds the code and nothing else."""
    (package,) = [
        path
        for path in cluster.folder.glob("r/session_2*/runtime_resources/working_dir_files/*")
        if path.is_dir()
    ]
    names = {path.name for path in package.iterdir()}
    assert {"orchestrator", "vitaclip", "experiments"} <= names
    assert not names & {
        ".git",
        ".venv",
        "store",
        "data",
        "mlruns",
        "mlflow.db",
        "tests",
        "docs",
        "testing",
    }
    size_bytes = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    assert size_bytes < 20e6


def check_refusal(cluster: RayCluster) -> None:
    """Nobody gets in without the token."""
    token, cluster.token = cluster.token, "0" * 32
    try:
        assert cluster.run("list").returncode != 0
    finally:
        cluster.token = token
