"""What a long study costs its driver: requests to the store, time and memory per trial, and a
restart.

    python -m benchmarks.scale                     # 500-trial study; restarts with up to 10,000
    finished trials python -m benchmarks.scale --sweep 2           # 500 trials of 2 epochs on a
    real Ray, with MLflow

The training is left out: trials "train" by publishing checkpoints of no tensors. Without
``--sweep`` the store is in memory and counts what it is asked; on S3 each count is one request.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import requests
from ray import tune
from rich.console import Console
from rich.table import Table

from orchestrator.config import ResourcesConfig, StudyConfig
from orchestrator.display import progress as terminal
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.execution import driver
from orchestrator.execution.cluster import ray_session
from orchestrator.execution.worker import Job, Report
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals import proposer_of
from orchestrator.search.search_space import Params, apply
from orchestrator.search.study import Study
from orchestrator.storage.attempts import begin_attempt
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.score import BenchmarkScore
from orchestrator.storage.records.split_score import SplitScore
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_log import TrialLog
from orchestrator.tracking.mlflow.service import MlflowService
from orchestrator.tracking.observer import TrackingObserver
from testing.servers.mlflow_server import MlflowServer
from testing.study_simulation import MemoryStore
from vitaclip.checkpoint_info import CheckpointInfo, Progress, write_info
from vitaclip.config import TrainConfig
from vitaclip.data.identity import DataIdentity
from vitaclip.data.manifest import read_list

NUM_EPOCHS = 10
ZERO_SHOT = {"dataset": "quickstart", "split": "zero_shot", "mode": "zero_shot"}


class CountingStore(MemoryStore):
    """Counts operations as S3 would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def _put(self, key: str, data: bytes) -> None:
        self.counts["PUT"] += 1
        super()._put(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        created = super()._create(key, data)
        self.counts["PUT"] += not created  # a refused one is a request too
        return created

    def _get(self, key: str) -> bytes:
        self.counts["GET"] += 1
        return super()._get(key)

    def _delete_keys(self, keys: list[str]) -> None:
        self.counts["DELETE"] += len(keys)
        super()._delete_keys(keys)

    def exists(self, key: str) -> bool:
        self.counts["HEAD"] += 1
        return super().exists(key)

    def list(self, prefix: str) -> list[str]:
        found = super().list(prefix)
        self.counts["LIST"] += 1 + len(found) // 1000
        return found


def study_config(num_trials: int, sampler: str) -> StudyConfig:
    """Four parameters, ten epochs, one benchmark."""
    return StudyConfig.model_validate(
        {
            "name": "scale",
            "question": "What does a long study cost?",
            "hypothesis": "The driver's cost per trial does not grow.",
            "train": {"epochs": NUM_EPOCHS},
            "search_space": {
                "prompts.depth": {"type": "int", "low": 0, "high": 12},
                "prompts.num_global": {"type": "int", "low": 0, "high": 16},
                "text.num_context": {"type": "int", "low": 1, "high": 32, "log": True},
                "optimizer.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            },
            "search": {"num_trials": num_trials, "lag": 8, "sampler": {"name": sampler}},
            "benchmarks": [ZERO_SHOT],
            "resources": {"max_concurrent_trials": 8},
        }
    )


def history_of(trial: TrialInfo, num_epochs: int = NUM_EPOCHS) -> list[dict[str, float]]:
    """Metrics that depend on the parameters, so that a sampler has something to learn."""
    lr, depth = trial.train.optimizer.lr, trial.train.prompts.depth or 0
    best = 1 / (1 + abs(depth - 8) / 8 + abs(lr - 1e-3) * 300)
    return [
        {
            "epoch": e,
            "val/top1": best * e / NUM_EPOCHS,
            "val/top5": 1.0,
            "train/loss": 1 / e,
            "time/epoch_s": 60.0,
        }
        for e in range(1, num_epochs + 1)
    ]


def train(record: StudyRecord, number: int, report: Report = lambda _: None) -> None:
    """All that a worker asks of the store for one trial, without any training."""
    trial = record.trial(number).info
    attempt = begin_attempt(record, number)
    assert attempt is not None
    with TrialLog(record, number, attempt.number) as log, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tensors in ("learned.safetensors", "optimizer.safetensors"):
            (folder / tensors).write_bytes(b"")
        for epoch in range(1, trial.train.epochs + 1):
            history = history_of(trial, epoch)
            info = CheckpointInfo(
                config=trial.train,
                class_names=("left", "right"),
                backbone_sha256="0" * 64,
                progress=Progress(epoch=epoch, history=tuple(history)),
            )
            write_info(folder, info)
            publish_checkpoint(record, number, attempt.number, folder, history)
            log.add("epoch", **history[-1])
            log.save()
            report(history[-1])


def _score(record: StudyRecord, number: int) -> BenchmarkScore:
    split = SplitScore(
        split="zero_shot",
        data=DataIdentity(num_classes=2, num_clips=2, classes="", labels="", files=""),
        top1=0.5,
        top5=1.0,
        num_broken=0,
        classes=("left", "right"),
        clips=(0, 1),
        files=(0, 1),
        labels=(0, 1),
        ranked=((0, 1), (0, 1)),
    )
    return BenchmarkScore(
        benchmark=ZeroShot.model_validate(ZERO_SHOT),
        checkpoint=str(record.trial(number).best_checkpoint(record.objective)),
        splits=(split,),
        metrics={"zero_shot/quickstart/top1": 0.5},
        scored_at=datetime.now(UTC),
        duration_s=1.0,
    )


def finished_study(
    num_finished: int, sampler: str
) -> tuple[StudyConfig, StudyRecord, CountingStore]:
    """A record of this many finished trials, written directly."""
    config, store = study_config(num_finished + 100, sampler), CountingStore()
    record = StudyRecord(store, config.name)
    record.create_or_check(config, {})
    # the points' origin does not matter here
    proposer = proposer_of(study_config(num_finished + 100, "random"))
    tried: list[Params] = []
    now = datetime.now(UTC)
    for number in range(num_finished):
        params = proposer.propose(tried, [PointOutcome("running")] * number, None).params
        tried.append(params)
        train = apply(config.train, params)
        trial = TrialInfo(number=number, params=params, train=train, proposed_at=now)
        record.write_trial(trial)
        history = history_of(trial)
        record.write_result(
            TrialResult.model_validate(
                {
                    "number": number,
                    "state": "complete",
                    "reason": None,
                    "params": params,
                    "values": [history[-1]["val/top1"]],
                    "metrics": history[-1],
                    "history": history,
                    "best_epoch": NUM_EPOCHS,
                    "checkpoint": None,
                    "benchmarks": {"zero_shot/quickstart/top1": 0.5},
                    "proposed_at": now,
                    "finished_at": now,
                    "durations": {"train_s": 600.0},
                }
            )
        )
    return config, record, store


def measure_run(num_trials: int, console: Console) -> None:
    """Requests per trial, and the driver's time per trial early and late."""
    config, store = study_config(num_trials, "tpe"), CountingStore()
    record = StudyRecord(store, config.name)
    record.create_or_check(config, {})
    study = Study(config, record)
    store.counts.clear()
    ask_s: list[float] = []
    for _ in range(num_trials):
        start = time.perf_counter()
        trial = study.next_trial()
        ask_s.append(time.perf_counter() - start)
        assert isinstance(trial, TrialInfo)
        train(record, trial.number)
        study.training_ended(trial.number)
        record.scores(trial.number).write(_score(record, trial.number))
        study.finish(trial.number)
    per_trial = {name: round(count / num_trials, 1) for name, count in sorted(store.counts.items())}
    console.print(f"{num_trials} trials of {NUM_EPOCHS} epochs: requests per trial {per_trial}")
    console.print(f"objects left per trial {len(store.content) / num_trials:.1f}")
    table = Table("trials before", "one proposal (TPE), ms")
    for low, high in (
        (0, 50),
        (num_trials // 2 - 25, num_trials // 2 + 25),
        (num_trials - 50, num_trials),
    ):
        table.add_row(f"{low}-{high}", f"{1000 * sum(ask_s[low:high]) / (high - low):.1f}")
    console.print(table)


def measure_restarts(sizes: list[int], sampler: str, console: Console) -> None:
    """A new driver over a record of many finished trials: reading it, and its first and second
    proposal.
    """
    table = Table(
        "finished",
        "requests",
        "read, s",
        "first proposal, s",
        "second, s",
        "driver grows by, MB",
        title=sampler,
    )
    for size in sizes:
        config, record, store = finished_study(size, sampler)
        store.counts.clear()
        before = psutil.Process().memory_info().rss
        clock = [time.perf_counter()]
        study = Study(config, record)
        requests = sum(store.counts.values())
        clock.append(time.perf_counter())
        for _ in range(2):
            study.next_trial()
            clock.append(time.perf_counter())
        grown = psutil.Process().memory_info().rss - before
        spans = [f"{b - a:.2f}" for a, b in itertools.pairwise(clock)]
        table.add_row(str(size), str(requests), *spans, f"{grown / 2**20:.1f}")
    console.print(table)


class _Clock(terminal.Progress):
    """The progress display, which notes when each trial was finished and how large the driver
    was.
    """

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.marks = [self._now()]

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        self.marks.append(self._now())

    def closed(self) -> None:
        super().closed()
        self.closed_at_s = time.perf_counter()

    @staticmethod
    def _now() -> tuple[float, int]:
        return time.perf_counter(), psutil.Process().memory_info().rss


def measure_sweep(num_trials: int, num_epochs: int, console: Console) -> None:
    """A sweep on a real Ray with MLflow, whose trials do not train: time per trial and the driver's
    memory.
    """
    config = study_config(num_trials, "tpe").model_copy(
        update={
            "train": TrainConfig(epochs=num_epochs),
            "benchmarks": (),
            "resources": ResourcesConfig(max_concurrent_trials=2),
        }
    )
    driver.run_trial = _no_training  # type: ignore[attr-defined]
    clock, requests_sent = _Clock(), count_requests()
    with tempfile.TemporaryDirectory() as name, ray_session(None, config.resources):
        record = StudyRecord(open_store(f"{name}/store"), config.name)
        record.create_or_check(config, {})
        server = MlflowServer(Path(name))
        server.start()
        try:
            tracking = TrackingObserver(MlflowService(server.uri), record, close_timeout_s=600)
            driver.run_study(Study(config, record), record.store.uri, [tracking, clock])
            assert tracking.delivered, "MLflow did not take everything within ten minutes"
        finally:
            server.kill()
    table = Table(
        "trials",
        "seconds per trial",
        "driver at the end, MB",
        title=f"{num_epochs} epochs, real Ray",
    )
    for first in range(0, num_trials, max(1, num_trials // 5)):
        marks = clock.marks[first : first + num_trials // 5 + 1]
        seconds = (marks[-1][0] - marks[0][0]) / (len(marks) - 1)
        size = f"{marks[-1][1] / 2**20:.0f}"
        table.add_row(f"{first}-{first + len(marks) - 1}", f"{seconds:.3f}", size)
    console.print(table)
    per_trial = {
        kind: round(count / num_trials, 1) for kind, count in sorted(requests_sent.items())
    }
    console.print(
        f"requests to MLflow per trial: {per_trial}; it had everything "
        f"{time.perf_counter() - clock.closed_at_s:.0f} s after the last trial, "
        f"{sum(requests_sent.values()) / (time.perf_counter() - clock.marks[0][0]):.0f} requests a "
        "second"
    )


def count_requests() -> Counter[str]:
    """What this process will ask of HTTP servers by the library that MLflow's client uses, by
    method.
    """
    counts: Counter[str] = Counter()
    send = requests.Session.send

    def counting_send(
        self: requests.Session, request: requests.PreparedRequest, **kwargs: Any
    ) -> requests.Response:
        counts[str(request.method)] += 1
        return send(self, request, **kwargs)

    requests.Session.send = counting_send  # type: ignore[method-assign]
    return counts


def measure_manifest(num_clips: int, console: Console) -> None:
    """Reading the list of a large training set, as every worker does at its start."""
    classes = [f"class {number}" for number in range(600)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "train.csv"
        lines = (
            f"class_{n % 600}/video_{n:08d}_000010_000020.mp4,{n % 600}\n" for n in range(num_clips)
        )
        path.write_text("".join(lines))
        memory, started = psutil.Process().memory_info().rss, time.perf_counter()
        clips = read_list(path, classes)
        seconds = time.perf_counter() - started
        grown = (psutil.Process().memory_info().rss - memory) / 2**20
    console.print(
        f"a list of {len(clips):,} clips: {seconds:.1f} s to read, {grown:.0f} MB in each process"
    )


def _no_training(config: dict[str, Any]) -> None:
    """In place of :func:`orchestrator.execution.trial.run_trial`."""
    job = Job(**config["job"])
    train(job.open_record(), job.number, tune.report)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--num-trials", type=int, default=500)
    parser.add_argument("--finished", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--sweep", type=int, metavar="EPOCHS", help="only the sweep on a real Ray")
    parser.add_argument("--clips", type=int, default=1_000_000, help="in a training set's list")
    options = parser.parse_args()
    console = Console(width=110)
    if options.sweep:
        measure_sweep(options.num_trials, options.sweep, console)
        return
    measure_run(options.num_trials, console)
    for sampler in options.samplers:
        measure_restarts(options.finished, sampler, console)
    measure_manifest(options.clips, console)


if __name__ == "__main__":
    main()
