"""What a killed trial or driver held on a cluster is free within 10 s: with a dashboard or without,
and with two Ray clusters on the host. Ray Train's own cleaner fails at each of these. And a group
of workers that is kept from trial to trial stays no longer than its study.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.paths import ROOT
from testing.servers.ray_cluster import RayCluster
from testing.sweeps import (
    PATIENCE_S,
    TRAIN_WORKER,
    Gate,
    eventually,
    start_sweep,
    titled,
    trainers,
    wait_until,
)

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


def run(cluster: RayCluster, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCENARIO, address, *options],
        env=cluster.environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1000,
    )


def test_a_killed_trials_reservation_is_freed_without_a_dashboard_beside_another_cluster(
    shared_cluster: RayCluster,
) -> None:
    done = run(shared_cluster, address="")
    assert done.stdout.endswith("free\n"), done.stderr


def test_a_killed_trials_and_a_killed_drivers_reservations_are_freed_on_a_cluster(
    shared_cluster: RayCluster,
) -> None:
    assert run(shared_cluster, shared_cluster.address, "die").returncode == -signal.SIGKILL
    done = run(shared_cluster, shared_cluster.address)
    assert done.stdout.endswith("free\n"), done.stderr


STUDY = """\
name: two
question: Is anything left?
hypothesis: No.
train:
  backbone: {name: quickstart-tiny, pretrained: quickstart}
  prompts: {num_global: 2}
  text: {num_context: 2}
  data: {dataset: motions, num_frames: 4, stride: 2, augment: {rand_augment: null}}
  epochs: 2
  batch_size: 8
  num_threads: 1
search_space: {optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}
search: {num_trials: 3, sampler: {name: random}}
resources: {num_workers: 2, max_concurrent_trials: 1, scoring: after}
benchmarks: [{dataset: motions, split: val, mode: supervised}]
"""


@pytest.mark.timeout(2 * PATIENCE_S)
def test_a_group_of_workers_trains_several_trials_and_ends_with_its_driver_and_with_its_study(
    shared_cluster: RayCluster, motion_dataset: str, mlflow_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    log, record = tmp_path / "log.txt", StudyRecord(open_store(str(tmp_path / "store")), "two")
    gate = Gate(tmp_path, "/trials/0001/checkpoints/attempt-0001/epoch-0002/")
    environment = {
        **shared_cluster.environment,
        **gate.environment,
        "RAY_ADDRESS": shared_cluster.address,
        "VITACLIP_STORE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": mlflow_uri,
    }
    killed = start_sweep(tmp_path, log, environment)
    wait_until(gate.is_reached, killed, log)
    assert trainers(record, 1) == trainers(record, 0)
    assert len(held(shared_cluster)) == 3  # two workers, one reservation
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    eventually(lambda: not held(shared_cluster))
    gate.open()

    assert start_sweep(tmp_path, log, environment).wait(PATIENCE_S) == 0, log.read_text()
    assert [result.state for result in record.results()] == ["complete"] * 3
    assert trainers(record, 2) == trainers(record, 1)[1:]
    eventually(lambda: not held(shared_cluster))


def held(cluster: RayCluster) -> list[str]:
    """The processes of workers, and the ids of their reservations."""
    groups = json.loads(cluster.listed("placement-groups"))
    return [
        *map(str, titled(cluster.processes(0), TRAIN_WORKER)),
        *(
            group["placement_group_id"]
            for group in groups
            if group["state"] != "REMOVED" and "CPU" in json.dumps(group["bundles"])
        ),
    ]
