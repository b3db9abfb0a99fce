"""``python -m benchmarks.search.on_ray``: trials per hour on a real Ray, of this project and of Ray
Tune with its ASHA.

Both run the same learning curves (:mod:`benchmarks.search.curves`) in a Ray of their own, whose
CPUs are the slots. A trial imports what a training does, sleeps through its epochs, and leaves a
checkpoint after each: the rest of the time is what the search and its execution cost. This project
runs as a sweep does, with its record in a folder, without benchmarks and tracking. Ray Tune runs a
function that reports, as its documentation shows, and once more with actors that are reused.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.callback import Callback
from ray.tune.schedulers import ASHAScheduler
from rich.console import Console
from rich.table import Table

from benchmarks.search.curves import NUM_CURVES, NUM_EPOCHS, make_curves
from benchmarks.search.early_stopping import MIN_LAG, REDUCTION_FACTOR
from benchmarks.search.this_project import OURS, config_of
from orchestrator.config import StudyConfig
from orchestrator.events.observer import Observer
from orchestrator.execution import driver, trial, worker
from orchestrator.execution.local_ray import local_ray
from orchestrator.search.resolve import resolve
from orchestrator.search.study import Study
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import PROVENANCE, write_checkpoint
from vitaclip.checkpoint_info import read_history
from vitaclip.config import TrainConfig
from vitaclip.train import EpochEnd


@dataclass
class Tally:
    """What a search had its trials report, and how long it took."""

    values: dict[tuple[str, int], float] = field(default_factory=dict)  # by trial and epoch
    started: float = field(default_factory=time.monotonic)
    first_s: float = 0.0
    wall_s: float = 0.0

    def add(self, trial: str, metrics: Mapping[str, Any]) -> None:
        """An epoch was reported; one that a trial goes on from may be reported again."""
        self.first_s = self.first_s or time.monotonic() - self.started
        self.values[trial, metrics["epoch"]] = metrics["val/top1"]

    def end(self) -> None:
        """The search has ended."""
        self.wall_s = time.monotonic() - self.started


def run_ours(config: StudyConfig, epoch_s: float) -> Tally:
    """The study as a sweep runs it: only ``fit`` is replaced, in the trials' processes."""
    driver.run_trial = partial(_run_trial_asleep, epoch_s)  # type: ignore[attr-defined]
    with (
        tempfile.TemporaryDirectory() as folder,
        local_ray(config.resources.max_concurrent_trials, config.resources),
    ):
        record = StudyRecord(open_store(f"{folder}/store"), config.name)
        record.create_or_check(config, PROVENANCE)
        tally = Tally()
        driver.run_study(Study(config, record), record.store.uri, [_Listener(tally)])
        tally.end()
    return tally


class _Listener(Observer):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        self._tally.add(str(number), metrics)


def _run_trial_asleep(epoch_s: float, config: dict[str, Any]) -> None:
    """In place of :func:`orchestrator.execution.trial.run_trial`."""
    worker.fit = partial(_sleep, config["job"]["number"], epoch_s)  # type: ignore[attr-defined, assignment]
    trial.run_trial(config)


def _sleep(
    number: int,
    epoch_s: float,
    config: TrainConfig,
    *,
    resume_from: Path | None,
    on_epoch_end: Callable[[EpochEnd], None],
    should_stop: Callable[[], bool],
) -> None:
    """In place of :func:`vitaclip.train.fit`.

    Args:
        number: the trial's.
        epoch_s: how long an epoch takes.
        config: as for ``fit``, and so are the others.
    """
    history = list(read_history(resume_from)) if resume_from else []
    for epoch in range(len(history) + 1, config.epochs + 1):
        time.sleep(epoch_s)
        history.append(_metrics(number, epoch) | {"time/epoch_s": epoch_s})
        save = partial(write_checkpoint, config=config, history=history)
        on_epoch_end(EpochEnd(epoch, history[-1], tuple(history), save))


def _metrics(number: int, epoch: int) -> dict[str, float]:
    value = make_curves(0, crossing=False).reported[number, epoch - 1]
    return {"epoch": epoch, "val/top1": float(value)}


class _TuneListener(Callback):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._tally.add(trial.trial_id, result)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_ray_tune(slots: int, epoch_s: float, *, reuse_actors: bool) -> Tally:
    """The same trials in a plain Tune sweep."""
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            tally = Tally()
            tune.Tuner(
                partial(_tune_trial, epoch_s),
                param_space={"number": tune.grid_search(list(range(NUM_CURVES)))},
                tune_config=tune.TuneConfig(
                    scheduler=ASHAScheduler(
                        time_attr="epoch",
                        metric="val/top1",
                        mode="max",
                        max_t=NUM_EPOCHS,
                        grace_period=1,
                        reduction_factor=REDUCTION_FACTOR,
                    ),
                    max_concurrent_trials=slots,
                    reuse_actors=reuse_actors,
                ),
                run_config=tune.RunConfig(
                    storage_path=folder, callbacks=[_TuneListener(tally)], verbose=0
                ),
            ).fit()
            tally.end()
    finally:
        ray.shutdown()
    return tally


def _tune_trial(epoch_s: float, config: dict[str, Any]) -> None:
    torch.set_num_threads(1)  # so it is imported, which takes a process seconds
    for epoch in range(1, NUM_EPOCHS + 1):
        time.sleep(epoch_s)
        metrics = _metrics(config["number"], epoch)
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), TrainConfig(), [metrics])
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def searches(slots: int, epoch_s: float) -> dict[str, Callable[[], Tally]]:
    """Each search's name, and what runs it."""
    asha = {"name": "asha", "reduction_factor": REDUCTION_FACTOR}
    lag = max(MIN_LAG, slots)

    def study(lag: int | None) -> Tally:
        search: dict[str, object] = {"lag": lag, "scheduler": asha}
        return run_ours(resolve(config_of(NUM_CURVES, NUM_EPOCHS, slots, search)), epoch_s)

    return {
        OURS: partial(study, None),
        f"{OURS}, lag {lag}": partial(study, lag),
        "Ray Tune": partial(run_ray_tune, slots, epoch_s, reuse_actors=False),
        "Ray Tune, reuse_actors": partial(run_ray_tune, slots, epoch_s, reuse_actors=True),
    }


def _cells(tally: Tally, slots: int, epoch_s: float) -> list[str]:
    return [
        str(len(tally.values)),
        f"{tally.first_s:.0f}",
        f"{tally.wall_s:.0f}",
        f"{len(tally.values) * epoch_s / (tally.wall_s * slots):.2f}",
        f"{3600 * NUM_CURVES / tally.wall_s:.0f}",
        f"{max(tally.values.values()):.4f}",
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.on_ray",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--slots", type=int, nargs="+", default=[2, 8], help="trials at once (default: 2 8)"
    )
    parser.add_argument("--epoch", type=float, default=2.0, help="of so many seconds (default: 2)")
    args = parser.parse_args()
    table = Table(title=f"{NUM_CURVES} trials of up to {NUM_EPOCHS} epochs of {args.epoch:g} s")
    for name in (
        "slots",
        "search",
        "epochs",
        "first after s",
        "wall s",
        "slot use",
        "trials/h",
        "best reported",
    ):
        table.add_column(name, justify="left" if name == "search" else "right")
    for slots in args.slots:
        for name, run in searches(slots, args.epoch).items():
            cells = _cells(run(), slots, args.epoch)
            print(f"{slots} slots, {name}:", *cells, flush=True)  # the next one takes minutes
            table.add_row(str(slots), name, *cells)
        table.add_section()
    Console(width=120).print(table)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, ray {version('ray')}")


if __name__ == "__main__":
    main()
