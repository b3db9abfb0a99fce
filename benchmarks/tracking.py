"""What tracking costs training: ``python -m benchmarks.tracking``, one trial again and again, with
MLflow and without.

As in a sweep: a small real training (real videos, every epoch's checkpoint into a store) in a
worker's process, the mirror in the driver's, which hears of every epoch, and a real MLflow server,
here on the same machine.

    step       wall time per optimizer step of an epoch, the first epoch of each trial left out
    worker     processor time of the worker's process; tracking does nothing there
    driver     processor time of the driver's process, which does nothing but tracking here
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from orchestrator.config import StudyConfig
from orchestrator.execution.worker import Job, train_worker
from orchestrator.search.study import Study
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.service import MlflowService
from orchestrator.tracking.observer import TrackingObserver
from testing.motions import write_motions
from testing.servers.mlflow_server import MlflowServer

STEPS_PER_EPOCH, BATCH_SIZE = 50, 4  # as many steps as an epoch's curve has points


@dataclass
class Clock:
    """Readings, in seconds: at the start of a trial and after each of its epochs."""

    wall: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)  # processor time
    driver: list[float] = field(default_factory=list)  # processor time

    def read(self, worker_s: float) -> None:
        """Called by the driver, with what the worker read."""
        self.wall.append(time.perf_counter())
        self.worker.append(worker_s)
        self.driver.append(time.process_time())


def study_config(name: str, num_epochs: int) -> StudyConfig:
    """A study that is never finished: what is registered at its end is not what an epoch costs."""
    return StudyConfig.model_validate(
        {
            "name": name,
            "question": "What does tracking cost?",
            "hypothesis": "Under a hundredth.",
            "train": {
                "backbone": {"name": "quickstart-tiny", "pretrained": "quickstart"},
                "data": {"dataset": "motions", "sampling": "uniform"},
                "batch_size": BATCH_SIZE,
                "epochs": num_epochs,
                "num_threads": 1,
            },
            "search_space": {"seed": {"type": "int", "low": 0, "high": 9}},
            "search": {"num_trials": 2},
        }
    )


def work(driver: Connection) -> None:
    """The worker's process: trains what it is told to, and says after each epoch how much processor
    time it used.
    """
    while job := driver.recv():
        driver.send(time.process_time())
        train_worker(job, lambda _: driver.send(time.process_time()))
        driver.send(None)


def run_trial(
    worker: Connection, config: StudyConfig, store: str, tracking_uri: str | None = None
) -> Clock:
    """One trial; with a tracking address, as the driver tracks it."""
    record = StudyRecord(open_store(store), config.name)
    record.create_or_check(config, {})
    study = Study(config, record)
    study.next_trial()
    tracking = None
    if tracking_uri:
        tracking = TrackingObserver(MlflowService(tracking_uri), record, close_timeout_s=60)
        tracking.opened(study)
    clock = Clock()
    worker.send(Job(store, config.name, 0))
    while (worker_s := worker.recv()) is not None:
        clock.read(worker_s)
        if tracking and len(clock.wall) > 1:
            tracking.epoch_ended(0, {})
    if tracking:
        tracking.closed()
        if not tracking.delivered:
            raise TimeoutError(f"MLflow at {tracking_uri} did not take everything in a minute")
    return clock


def measure(num_trials: int, num_epochs: int, folder: Path) -> dict[str, list[Clock]]:
    """So many trials without and with tracking, in turns."""
    server = MlflowServer(folder)
    server.start()
    worker, end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(end,))
    process.start()
    uris = {"without": None, "with": server.uri}
    clocks: dict[str, list[Clock]] = {side: [] for side in uris}
    store = str(folder / "store")
    try:
        run_trial(worker, study_config("warm-up", num_epochs=1), store)
        for trial in range(num_trials):
            for side in sorted(uris, reverse=trial % 2 == 0):
                config = study_config(f"{side}-{trial}", num_epochs)
                clocks[side].append(run_trial(worker, config, store, uris[side]))
    finally:
        worker.send(None)
        process.join()
        server.kill()
    return clocks


def spans(readings: Sequence[Sequence[float]]) -> list[float]:
    """What passed in each epoch but the first of each trial, least first."""
    return sorted(
        end - start
        for reading in readings
        for start, end in itertools.islice(itertools.pairwise(reading), 1, None)
    )


def report(clocks: dict[str, list[Clock]]) -> None:
    """Prints both sides and what tracking needs."""
    walls = {side: spans([clock.wall for clock in trials]) for side, trials in clocks.items()}
    workers = {side: spans([clock.worker for clock in trials]) for side, trials in clocks.items()}
    for side, wall in walls.items():
        best, middle, worst = (
            1000 * s / STEPS_PER_EPOCH for s in (wall[0], median(wall), wall[-1])
        )
        print(f"{side:8} step best {best:.1f} ms, median {middle:.1f}, worst {worst:.1f} of "
              f"{len(wall)} epochs; worker {workers[side][0]:.2f} s an epoch at best, median "
              f"{median(workers[side]):.2f}")  # fmt: skip
    for name, sides in (("step", walls), ("worker", workers)):
        best, middle = (f(sides["with"]) / f(sides["without"]) for f in (min, median))
        print(f"ratio    {name} best {best:.3f}, median {middle:.3f}")
    tracking = spans([clock.driver for clock in clocks["with"]])
    first_s = median(clock.driver[1] - clock.driver[0] for clock in clocks["with"])
    share = median(tracking) / median(workers["without"])
    print(f"driver   {1000 * median(tracking):.0f} ms an epoch (up to {1000 * tracking[-1]:.0f}), "
          f"{share:.2%} of the worker's; {1000 * first_s:.0f} ms in a trial's first epoch, for its "
          "run and the study's")  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=3, help="with tracking, and as many without")
    parser.add_argument(
        "--epochs", type=int, default=5, help=f"of each, {STEPS_PER_EPOCH} steps long"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "motions").mkdir()
        write_motions(folder / "motions", num_train=STEPS_PER_EPOCH * BATCH_SIZE, num_val=8)
        os.environ["VITACLIP_DATA_MOTIONS"] = str(folder / "motions")
        os.environ["VITACLIP_FRAME_CACHE"] = str(folder / "cache")
        report(measure(options.trials, options.epochs, folder))


if __name__ == "__main__":
    main()
