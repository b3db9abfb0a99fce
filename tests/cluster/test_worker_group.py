"""A slot keeps its group of workers from trial to trial, on real Ray. A fault, or others who wait
for the place, end the group, and the numbers stay the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from orchestrator.config import ResourcesConfig, StudyConfig
from orchestrator.execution import worker_group
from orchestrator.execution.cluster import a_group_waits, ray_session
from orchestrator.execution.worker import Job
from orchestrator.execution.worker_group import train_on_workers
from orchestrator.search.study import Study
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import PROVENANCE, study_config
from testing.sweeps import TRAIN_WORKER, eventually, titled, trainers, untimed

RESOURCES = ResourcesConfig(num_workers=2, max_concurrent_trials=1)
TRAIN = {
    "backbone": {"name": "quickstart-tiny", "pretrained": "quickstart"},
    "prompts": {"num_global": 2},
    "text": {"num_context": 2},
    "data": {"dataset": "motions", "num_frames": 4, "stride": 2},
    "epochs": 2,
    "batch_size": 8,
    "num_threads": 1,
}
NAN = 3  # this trial's loss becomes NaN
POINTS = [{"optimizer.lr": lr} for lr in (2e-3, 3e-3, 4e-3, 1e30)]


class _Slot:
    """A trial's actor without Tune."""

    def train(
        self, store_uri: str, number: int, gpus_per_worker: float = 0, keep_s: float = 600
    ) -> list[dict[str, float]]:
        """What the training reports. The group then waits ``keep_s`` seconds for the next one: far
        longer than a busy machine takes to ask for it.
        """
        worker_group._KEEP_S = keep_s
        reports: list[dict[str, float]] = []
        resources = RESOURCES.model_copy(update={"gpus_per_worker": gpus_per_worker})
        train_on_workers(Job(store_uri, "group", number), resources, reports.append)
        return reports

    def end_group(self) -> None:
        worker_group._kept._give_up()


Slot: Any = ray.remote(num_cpus=0)(_Slot)


@pytest.fixture(scope="module", autouse=True)
def own_ray(motion_dataset: str) -> Iterator[None]:
    """One for all slots of this file, with a CPU more than a group takes, and a GPU that is none:
    workers find it in Ray's books only, and compute on the CPU.
    """
    # short: it holds Ray's sockets
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr("orchestrator.execution.cluster.num_cpus", lambda: 2)
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')
        with ray_session(None, RESOURCES):
            yield


@pytest.fixture(scope="module")
def slot(own_ray: None) -> Any:
    """One for all tests, since processes take long to start: a test's first trial is trained by the
    group that the test before has left, or by a new one.
    """
    return Slot.remote()


@pytest.fixture
def trials(tmp_path: Path) -> StudyRecord:
    """The record of a study whose trials are proposed."""
    return propose_trials(tmp_path / "store")


def propose_trials(folder: Path) -> StudyRecord:
    config: StudyConfig = study_config(
        name="group",
        train=TRAIN,
        search_space={"optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e30, "log": True}},
        search={
            "num_trials": len(POINTS),
            "lag": len(POINTS),
            "sampler": {"name": "random"},
            "first_points": POINTS,
        },
        resources=RESOURCES.model_dump(),
        benchmarks=[],
    )
    record = StudyRecord(LocalStore(folder), config.name)
    record.create_or_check(config, PROVENANCE)
    study = Study(config, record)
    for _ in POINTS:
        study.next_trial()
    return record


def train(slot: Any, record: StudyRecord, number: int) -> Any:
    """What it reports, once it has ended."""
    return slot.train.remote(record.store.uri, number)


def workers() -> list[psutil.Process]:
    """The processes of all groups."""
    return titled(psutil.Process().children(recursive=True), TRAIN_WORKER)


def test_trials_share_a_group_and_one_that_loses_a_worker_while_it_waits_costs_no_trial(
    slot: Any, trials: StudyRecord, tmp_path: Path
) -> None:
    reports = [ray.get(train(slot, trials, number)) for number in (0, 1)]
    assert [[metrics["epoch"] for metrics in history] for history in reports] == [[1, 2]] * 2
    assert len(workers()) == 2
    assert trainers(trials, 0) == trainers(trials, 1)

    workers()[-1].kill()
    others = propose_trials(tmp_path / "others")
    report_of_new_group = ray.get(train(slot, others, 1))
    assert len(trainers(others, 1)) == 1
    assert trainers(others, 1) != trainers(trials, 1)
    assert untimed(report_of_new_group) == untimed(reports[1])


def test_after_a_failed_trial_the_next_one_has_a_new_group(slot: Any, trials: StudyRecord) -> None:
    ray.get(train(slot, trials, 0))
    with pytest.raises(ray.exceptions.RayTaskError, match="NonFiniteLossError"):
        ray.get(train(slot, trials, NAN))
    ray.get(train(slot, trials, 1))
    assert trainers(trials, 0) == trainers(trials, NAN) != trainers(trials, 1)


def test_a_group_gives_way_to_one_that_waits_for_its_place(slot: Any, trials: StudyRecord) -> None:
    ray.get(train(slot, trials, 0))
    other = Slot.remote()
    # Its group soon gives its place back, which the second trial needs.
    first = other.train.remote(trials.store.uri, 1, keep_s=1)
    eventually(lambda: a_group_waits() or trainers(trials, 1))
    second = train(slot, trials, 2)
    ray.get([first, second])
    assert trainers(trials, 2) != trainers(trials, 0)
    ray.kill(other)


def test_a_group_that_gets_no_trial_gives_back_what_it_holds(
    slot: Any, trials: StudyRecord
) -> None:
    ray.get(slot.train.remote(trials.store.uri, 0, keep_s=1))
    total = ray.cluster_resources()["CPU"]
    eventually(lambda: ray.available_resources().get("CPU") == total and not workers())
    ray.get(train(slot, trials, 1))


def test_two_workers_share_a_gpu(slot: Any, trials: StudyRecord, tmp_path: Path) -> None:
    others = propose_trials(tmp_path / "others")
    # A group of the test before would be taken, and it has no GPU.
    ray.get(slot.end_group.remote())
    eventually(lambda: not workers())
    sharing = ray.get(slot.train.remote(trials.store.uri, 0, 0.5))
    # Those of groups that have ended are listed, too.
    groups = ray.util.placement_group_table().values()
    held = [bundle.get("GPU", 0) for group in groups for bundle in group["bundles"].values()]
    assert held.count(0.5) == 2
    ray.get(slot.end_group.remote())
    without = Slot.remote()
    assert untimed(sharing) == untimed(ray.get(train(without, others, 0)))
    ray.kill(without)
