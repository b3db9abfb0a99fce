"""A sweep as a Slurm job on two nodes, which runs into its time limit twice."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.paths import ROOT
from testing.servers.ray_cluster import RAY
from testing.servers.slurm import Slurm, obstacle
from testing.sweeps import PATIENCE_S, Gate, leftovers, start_sweep, untimed
from tests.drivers.chaos import first_difference
from tests.integration.test_sweep import NUM_TRIALS, STUDY

pytestmark = pytest.mark.slow  # Slurm, two Ray nodes, four sweeps: minutes
TWO_AT_ONCE = ("--set", "resources.max_concurrent_trials=2")
WARNING_MIN = 15  # before the end; on a busy machine nothing is over in three minutes


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: sockets lie in it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="v", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def slurm(folder: Path) -> Iterator[Slurm]:
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    (folder / "s").mkdir()
    with Slurm(folder / "s") as running:
        yield running


class Job:
    """``sweep.sbatch`` with a study of the test's."""

    def __init__(self, slurm: Slurm, place: Path, environment: dict[str, str]) -> None:
        self._slurm = slurm
        self._output = place / "job.txt"
        words = (
            *("--nodes=2", "--cpus-per-task=2", "--time=60", f"--output={self._output}"),
            f"--signal=B:USR1@{60 * WARNING_MIN}",
        )
        command = ("infra/slurm/sweep.sbatch", str(place / "study.yaml"), *TWO_AT_ONCE)
        self._number = slurm.submit(*words, *command, folder=ROOT, environment=environment)

    def run_into_its_limit(self, gate: Gate, restarts: int) -> None:
        """Once a trial stands at the gate, shortens the job's time so that its warning is due, and
        opens the gate when the trial has been told. Returns when the job is back in the queue.
        """
        self._wait_until(lambda _: gate.is_reached())
        minutes = WARNING_MIN + _seconds(self._shown()["RunTime"]) // 60
        self._update(minutes)
        self._wait_until(lambda _: self.output().count("Ray nodes that end now: 2") == restarts)
        gate.open()
        self._wait_until(lambda shown: shown["Restarts"] == str(restarts))
        self._update(60)

    def wait(self) -> str:
        """The state in which it has ended."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        self._wait_until(lambda shown: shown["JobState"] in ended)
        return self._shown()["JobState"]

    def output(self) -> str:
        return self._output.read_text() if self._output.exists() else ""

    def _update(self, minutes: int) -> None:
        self._slurm.run("scontrol", "update", f"JobId={self._number}", f"TimeLimit={minutes}")

    def _shown(self) -> dict[str, str]:
        return self._slurm.job(self._number)

    def _wait_until(self, condition: Callable[[dict[str, str]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition(shown := self._shown()):
            assert shown["JobState"] != "FAILED", self.output()
            assert time.monotonic() < deadline, f"{shown}\n{self.output()}"
            time.sleep(0.5)


@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_sweep_that_reaches_its_time_limit_twice_ends_as_one_that_does_not(
    slurm: Slurm, motion_dataset: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "plain").mkdir()
    (folder / "scratch").mkdir()
    plain, log = os.environ | places(tmp_path / "plain"), tmp_path / "plain.txt"
    assert start_sweep(tmp_path, log, plain, *TWO_AT_ONCE).wait(PATIENCE_S) == 0, log.read_text()

    gate = Gate(tmp_path, r"/trials/0001/checkpoints/attempt-\d+/epoch-0002/")
    environment = {
        **places(tmp_path),
        **gate.environment,
        "SLURM_TMPDIR": str(folder / "scratch"),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    }
    job = Job(slurm, tmp_path, environment)
    job.run_into_its_limit(gate, restarts=1)
    gate.close(r"/trials/0003/checkpoints/attempt-\d+/epoch-0002/")
    job.run_into_its_limit(gate, restarts=2)

    assert job.wait() == "COMPLETED", job.output()
    assert job.output().count("interrupted; the same command goes on from here") == 2
    assert "was not given back" not in job.output()
    record = record_of(tmp_path)
    assert ["stopped in epoch 3" in record.trial(n).log for n in (1, 3)] == [True, True]
    assert len(record.results()) == NUM_TRIALS
    assert first_difference(outcomes(tmp_path), outcomes(tmp_path / "plain")) == ""
    assert leftovers(folder / "scratch") == []


def places(folder: Path) -> dict[str, str]:
    return {
        "VITACLIP_STORE": str(folder / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }


def record_of(folder: Path) -> StudyRecord:
    return StudyRecord(open_store(str(folder / "store")), "motions")


def outcomes(folder: Path) -> list[object]:
    return [untimed(result.model_dump(mode="json")) for result in record_of(folder).results()]


def _seconds(clock: str) -> int:
    """Of Slurm's ``hours:minutes:seconds``."""
    hours, minutes, rest = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + rest
