"""A study over several hosts, DDP between them: they lose power, a link and the head, and the study
loses nothing.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from testing.paths import ROOT
from testing.servers import hosts
from testing.servers.hosts import RAY, Hosts
from testing.sweeps import TRAIN_WORKER
from tests.drivers.chaos import PAUSE_S, Sweep, first_difference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SETTINGS = (
    *("resources.num_workers=2", "resources.placement=spread", "resources.max_concurrent_trials=1"),
    *("resources.epoch_timeout_s=40", "resources.max_failures=9"),
    *("search.num_trials=3", "train.epochs=30"),
)


@pytest.fixture
def cluster() -> Iterator[Hosts]:
    """A head without CPUs and three hosts with one CPU each: two workers of a trial share no
    host.
    """
    if (reason := hosts.obstacle()) is not None:
        pytest.skip(reason)
    place = tempfile.TemporaryDirectory(dir="/tmp", prefix="h", ignore_cleanup_errors=True)
    with place as folder, Hosts(Path(folder)) as running:
        running.start("--num-cpus", "0")
        for _ in range(3):
            running.start("--num-cpus", "1")
        yield running


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[tuple[Sweep, Sweep]]:
    """The same study twice: for this machine alone, and for the hosts."""
    names = ("alone", "hosts")
    for name in names:
        (tmp_path / name).mkdir()
    alone, on_hosts = (Sweep(tmp_path / name, SETTINGS) for name in names)
    yield alone, on_hosts
    alone.close()
    on_hosts.close()


def test_a_study_survives_dead_hosts_and_a_cut_link(
    cluster: Hosts, sweeps: tuple[Sweep, Sweep]
) -> None:
    alone, sweep = sweeps
    alone.start()
    alone.finish()
    submit(cluster, sweep)

    for number, strike in enumerate((cut_power, cut_link, cut_power_of_head)):
        wait_until(cluster, lambda: "epoch" in events(sweep, number))  # noqa: B023  # used up before the next turn
        assert len(cluster.running(TRAIN_WORKER)) == 2
        strike(cluster)
    submit(cluster, sweep)
    wait_until(cluster, lambda: ended(cluster))

    assert "SUCCEEDED" in job(cluster, "list"), job_log(cluster)
    assert first_difference(sweep.results(), alone.results()) == ""
    assert sweep.run_names() == alone.run_names()
    assert [n for n in range(3) if events(sweep, n).count("start") < 2] == [], (
        "their faults struck nobody"
    )
    wait_until(cluster, lambda: not cluster.running(TRAIN_WORKER), timeout_s=60)


def cut_power(cluster: Hosts) -> None:
    """Of a host that trains."""
    cluster.kill(cluster.running(TRAIN_WORKER)[0])


def cut_link(cluster: Hosts) -> None:
    """Of a host that trains."""
    number = cluster.running(TRAIN_WORKER)[-1]
    cluster.plug(number, "down")
    time.sleep(PAUSE_S)
    cluster.plug(number, "up")


def cut_power_of_head(cluster: Hosts) -> None:
    """The cluster is lost, and the job with it; the other nodes find the new head."""
    cluster.kill(1)
    cluster.wait_for_node(1)
    wait_until(cluster, lambda: "/3.0 CPU" in cluster.run(1, RAY, "status").stdout)


def events(sweep: Sweep, number: int) -> list[str]:
    """What a trial's log tells, over all attempts."""
    logs = (sweep.folder / "store" / "chaos" / "trials" / f"{number:04d}" / "attempts").glob(
        "*.jsonl"
    )
    lines = [line for log in sorted(logs) for line in log.read_text().splitlines()]
    return [json.loads(line)["event"] for line in lines]


def submit(cluster: Hosts, sweep: Sweep) -> None:
    environment = yaml.safe_load((ROOT / "infra/job.yaml").read_text())
    environment["env_vars"] |= {
        name: value
        for name, value in sweep.environment.items()
        if name.startswith(("VITACLIP_", "MLFLOW_"))
    }
    (sweep.folder / "job.yaml").write_text(yaml.safe_dump(environment))
    settings = (
        "--working-dir",
        ROOT,
        "--runtime-env",
        sweep.folder / "job.yaml",
        "--submission-id",
        "study",
    )
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    study = str(sweep.folder / "study.yaml")
    command = ("python", "-m", "orchestrator.sweep", study, *options)
    output = job(cluster, "submit", *settings, "--no-wait", "--", *command)
    assert "submitted successfully" in output, output


def ended(cluster: Hosts) -> bool:
    output = job(cluster, "status", "study")
    return "succeeded" in output or "failed" in output


def job_log(cluster: Hosts) -> str:
    return job(cluster, "logs", "study")


def job(cluster: Hosts, command: str, *words: str | Path) -> str:
    """``ray job ...`` on the head."""
    done = cluster.run(1, RAY, "job", command, "--address", "http://127.0.0.1:8265", *words)
    return done.stdout + done.stderr


def wait_until(cluster: Hosts, condition: Callable[[], object], timeout_s: float = 500) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, cluster.logs() + job_log(cluster)
        time.sleep(0.5)
