"""How much of a sweep's time is training? ``python -m benchmarks.sweep``: ours against a plain Tune
+ Train sweep.

Both run the same short trials of :func:`vitaclip.fit` on the quickstart's world with two workers on
two cores (two trials of one worker at once, or with ``--workers 2`` one of two), each in a Ray of
its own. Plain is what Ray's documentation shows: a Tune trial that runs a ``TorchTrainer``.

    efficiency   time inside training and evaluation steps / (wall time x slots)
    gap          seconds in a slot between one trial's last step and the next trial's first
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.callback import Callback
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.config import StudyConfig
from orchestrator.events.observer import Observer
from orchestrator.execution.cluster import num_cpus, ray_session
from orchestrator.execution.driver import run_study
from orchestrator.search.search_space import apply
from orchestrator.search.study import Study
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.service import MlflowService
from orchestrator.tracking.observer import TrackingObserver
from vitaclip.checkpoint_info import seconds_of
from vitaclip.config import TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.train import EpochEnd, fit

CORES = 2
TRAIN = {
    "backbone": {"name": "quickstart-tiny", "pretrained": "quickstart"},
    "prompts": {"num_global": 2},
    "text": {"num_context": 2},
    "data": {
        "dataset": "quickstart",
        "sampling": "uniform",
        "augment": {"rand_augment": None, "random_resized_crop": None},
    },
    "batch_size": 32,
    "num_threads": 1,
}


@dataclass
class Stopwatch:
    """When which trial was inside its steps, as the driver heard of it."""

    slots: int
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    ended: float = 0.0

    def epoch(self, trial: str, metrics: Mapping[str, float]) -> None:
        """An epoch was reported a moment ago."""
        now = time.monotonic()
        self.steps[trial].append((now - seconds_of(metrics), now))
        self.ended = now

    def summary(self) -> dict[str, float]:
        """The figures of a finished sweep."""
        spans = [span for spans in self.steps.values() for span in spans]
        wall_s = self.ended - self.started
        return {
            "trials": len(self.steps),
            "wall_s": wall_s,
            "efficiency": sum(end - start for start, end in spans) / (wall_s * self.slots),
            "gap_s": median(self.gaps()),
            "longest_gap_s": max(self.gaps()),
            "trials_per_hour": 3600 * len(self.steps) / wall_s,
        }

    def gaps(self) -> list[float]:
        """Each trial took the slot that had been free for longest."""
        trials = sorted((spans[0][0], spans[-1][1]) for spans in self.steps.values())
        free = [end for _, end in trials[: self.slots]]
        gaps = []
        for start, end in trials[self.slots :]:
            previous = min(free)
            gaps.append(start - previous)
            free[free.index(previous)] = end
        return gaps


class _Listener(Observer):
    """Takes the time of every epoch."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch

    def opened(self, study: Study) -> None:
        self._has_benchmarks = bool(study.config.benchmarks)

    def closed(self) -> None:
        if self._has_benchmarks:
            self.stopwatch.ended = time.monotonic()

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        self.stopwatch.epoch(str(number), metrics)


def run_ours(config: StudyConfig, folder: Path) -> Stopwatch:
    """The study as ``python -m orchestrator.sweep`` runs it, benchmarks and tracking included."""
    store_uri = str(folder / "store")
    record = StudyRecord(open_store(store_uri), config.name)
    record.create_or_check(config, {})
    with ray_session(None, config.resources):
        stopwatch = Stopwatch(config.resources.max_concurrent_trials)
        tracking = TrackingObserver(MlflowService(f"sqlite:///{folder / 'mlflow.db'}"), record)
        # The listener is closed before the tracking, whose last deliveries are not measured.
        run_study(Study(config, record), store_uri, [tracking, _Listener(stopwatch)])
    return stopwatch


def run_plain(config: StudyConfig) -> Stopwatch:
    """The same trials, one ``TorchTrainer`` each, neither tracked nor benchmarked."""
    slots = config.resources.max_concurrent_trials
    stopwatch = Stopwatch(slots)

    class Listener(Callback):
        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            stopwatch.epoch(trial.trial_id, result)

    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "2"  # Ray's default
    # one more than there are: the watching trial's own share would keep the second worker out for
    # ever
    ray.init(address="local", num_cpus=num_cpus() + 1, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            stopwatch.started = time.monotonic()
            tune.Tuner(
                tune.with_resources(_plain_trial, {"cpu": 0.01}),
                param_space={
                    "seed": tune.grid_search(list(range(config.search.num_trials))),
                    "config": config.train.model_dump(mode="json"),
                    "num_workers": config.resources.max_workers,
                },
                tune_config=tune.TuneConfig(max_concurrent_trials=slots),
                run_config=tune.RunConfig(storage_path=folder, callbacks=[Listener()], verbose=0),
            ).fit()
    finally:
        ray.shutdown()
    return stopwatch


def _plain_trial(config: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        TorchTrainer(
            _plain_worker,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=config["num_workers"]),
            run_config=train.RunConfig(
                storage_path=folder,
                # its types are still those of Ray Train's first version
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()


def _plain_worker(config: dict[str, Any]) -> None:
    def report(end: EpochEnd) -> None:
        with tempfile.TemporaryDirectory() as folder:
            first = train.get_context().get_world_rank() == 0
            if first:
                end.save(Path(folder))
            checkpoint = train.Checkpoint.from_directory(folder) if first else None
            train.report(dict(end.metrics), checkpoint=checkpoint)

    fit(
        apply(TrainConfig.model_validate(config["config"]), {"seed": config["seed"]}),
        on_epoch_end=report,
    )


def main() -> int:
    """Prints both, side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--clips", type=int, default=320, help="training clips per epoch")
    parser.add_argument("--workers", type=int, default=1, choices=[1, 2], help="of one trial")
    parser.add_argument("--skip-plain", action="store_true")
    options = parser.parse_args()
    values = TRAIN | {"epochs": options.epochs, "data": TRAIN["data"] | {"limit": options.clips}}  # type: ignore[operator]
    config = StudyConfig.model_validate(
        {
            "name": "benchmark",
            "question": "How much time is lost between trials?",
            "hypothesis": "Under a fifth.",
            "train": values,
            "search_space": {"seed": {"type": "int", "low": 0, "high": 10_000}},
            "search": {"num_trials": options.trials, "sampler": {"name": "random"}},
            "resources": {
                "num_workers": options.workers,
                "max_concurrent_trials": CORES // options.workers,
            },
        }
    )
    load_dataset("quickstart", "train")
    with tempfile.TemporaryDirectory() as folder:
        found = {"ours": run_ours(config, Path(folder)).summary()}
    if not options.skip_plain:
        found["plain"] = run_plain(config).summary()
    for name, figures in found.items():
        print(name, "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    if "plain" in found:
        factor = found["ours"]["trials_per_hour"] / found["plain"]["trials_per_hour"]
        print(f"ours finishes {factor:.1f} times the trials per hour")
    return 0


if __name__ == "__main__":
    sys.exit(main())
