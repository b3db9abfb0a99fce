"""What a killed trial or driver held on a cluster is free within 10 s: with a dashboard or without,
and with two Ray clusters on the host. Ray Train's own cleaner fails at each of these.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.paths import ROOT
from testing.servers.ray_cluster import RayCluster

SCENARIO = '''
import os, signal, sys, time
import psutil, ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from orchestrator.execution.cluster import ray_session
from orchestrator.config import ResourcesConfig


@ray.remote(num_cpus=1)
class Worker:
    def pid(self):
        return os.getpid()


@ray.remote(num_cpus=0)
class Controller:
    """Reserves for its worker, as Ray Train's controller does."""

    def start(self):
        group = placement_group([{"CPU": 1}])
        place = PlacementGroupSchedulingStrategy(group)
        self.worker = Worker.options(scheduling_strategy=place).remote()
        return os.getpid(), ray.get(self.worker.pid.remote())


def free_cpus():
    return ray.available_resources().get("CPU", 0)


def eventually(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, f"{free_cpus()} CPUs are free"
        time.sleep(0.1)


with ray_session(sys.argv[1] or None, ResourcesConfig(max_concurrent_trials=1)):
    total = ray.cluster_resources()["CPU"]
    eventually(lambda: free_cpus() == total)  # whatever an earlier driver held
    own = placement_group([{"CPU": 1}])  # as Tune's: no actor made it, and it stays
    controller = Controller.remote()
    controller_pid, worker_pid = ray.get(controller.start.remote())
    eventually(lambda: free_cpus() == total - 2)
    os.kill(os.getpid() if "die" in sys.argv else controller_pid, signal.SIGKILL)
    eventually(lambda: free_cpus() == total - 1 and not psutil.pid_exists(worker_pid))
    print("free")
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One with a dashboard, beside which all tests of this file run."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder,
        RayCluster(Path(folder)) as running,
    ):
        running.start_node("--num-cpus", "2")
        yield running


def run(cluster: RayCluster, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCENARIO, address, *options],
        env=cluster.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1000,
    )


def test_a_killed_trials_reservation_is_freed_without_a_dashboard_beside_another_cluster(
    cluster: RayCluster,
) -> None:
    done = run(cluster, address="")
    assert done.stdout.endswith("free\n"), done.stderr


def test_a_killed_trials_and_a_killed_drivers_reservations_are_freed_on_a_cluster(
    cluster: RayCluster,
) -> None:
    assert run(cluster, cluster.address, "die").returncode == -signal.SIGKILL
    done = run(cluster, cluster.address)
    assert done.stdout.endswith("free\n"), done.stderr
