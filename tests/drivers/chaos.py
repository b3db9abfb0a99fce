"""The fault matrix: ``make chaos``, or ``python -m tests.drivers.chaos [--mode MODE] [FAULT ...]``.

Every fault strikes the same seeded sweep (real Ray, real videos, real servers) once a trial has a
checkpoint. Afterwards each trial must have ended once, and neither a process nor a temporary file
may be left. With ``--mode lag`` each trial must have the metrics of the fault-free run, bit for
bit. With ``--mode asynchronous`` trials are paused and promoted: each decision must have been taken
once and come out again from the record, and each trial must have the metrics of an undisturbed
training, bit for bit, as far as it was trained. Without the option both modes run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from orchestrator.search.replay import replay
from orchestrator.storage.journal import read_journal
from orchestrator.storage.stores.base import Store
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.mlflow_runs import runs_of
from testing.motions import write_motions
from testing.servers.mlflow_server import MlflowServer
from testing.servers.ray_cluster import RayCluster
from testing.servers.s3_server import FaultyProxy, faulty_proxy, s3_server
from testing.study_simulation import place_of
from testing.sweeps import (
    TRAIN_WORKER,
    TRIAL_ACTOR,
    leftovers,
    ray_processes,
    start_sweep,
    untimed,
    wait_until,
)
from vitaclip.config import TrainConfig
from vitaclip.train import fit

# What each mode sets before a fault's own settings.
MODES = {
    "lag": (),
    "asynchronous": (
        "search.lag=null",
        "search.num_trials=4",
        "search.scheduler={name: asha, reduction_factor: 2}",
    ),
}
PAUSE_S = float(os.environ.get("CHAOS_PAUSE_S", "60"))
STUDY = """\
name: chaos
question: Does it end the same?
hypothesis: It does.
train:
  backbone: {name: quickstart-tiny, pretrained: quickstart}
  prompts: {num_global: 2}
  text: {num_context: 2}
  data:
    {dataset: motions, num_frames: 4, stride: 2, max_broken: 0.2, augment: {rand_augment: m3-n1}}
  epochs: 4
  batch_size: 8
  num_threads: 1
search_space:
  prompts.depth: {type: int, low: 1, high: num_layers}
  optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}
search: {num_trials: 3, lag: 3, sampler: {name: tpe, num_startup_trials: 2}}
benchmarks: [{dataset: motions, split: val, mode: supervised}]
"""


class Sweep:
    """One study in a folder of its own, and the processes that run it."""

    proxy: FaultyProxy
    mlflow: MlflowServer
    cluster: RayCluster

    def __init__(self, folder: Path, settings: tuple[str, ...]) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        # short: it holds Ray's sockets
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp", prefix="c"))
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "VITACLIP_DATA_MOTIONS": str(folder / "motions"),
            "VITACLIP_FRAME_CACHE": str(folder / "cache"),
            "VITACLIP_STORE": str(folder / "store"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        }
        self.options = [
            "--traceback",
            *(word for setting in settings for word in ("--set", setting)),
        ]
        (folder / "motions").mkdir()
        write_motions(folder / "motions", num_train=48, num_val=16)
        (folder / "study.yaml").write_text(STUDY)

    def start(self) -> None:
        self.process = start_sweep(self.folder, self.log, self.environment, *self.options)

    def finish(self) -> None:
        """Waits for the end, starting the command again if the fault has ended it."""
        if self.process.poll() is not None:
            self.start()
        code = self.process.wait(900)
        assert code == 0, f"exit code {code}:\n{self.log.read_text()}"

    @property
    def store(self) -> Store:
        os.environ.update(
            {key: value for key, value in self.environment.items() if key[:3] in ("S3_", "AWS")}
        )
        return open_store(self.environment["VITACLIP_STORE"])

    def wait_until_training(self, *, hangs: bool) -> None:
        """Until some trial has a checkpoint, or, if none can, until one is on record."""
        mark = "trial.json" if hangs else "manifest.json"

        def reached() -> bool:
            return any(key.endswith(mark) for key in self.store.list("chaos/trials"))

        wait_until(reached, self.process, self.log, timeout_s=600)

    def results(self) -> list[dict[str, Any]]:
        """What every fault must leave alone."""
        keys = [key for key in self.store.list("chaos/trials") if key.endswith("/result.json")]
        return [untimed(self.store.read_json(key)) for key in keys]

    def run_names(self) -> list[str]:
        """Runs in MLflow."""
        client = MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        return sorted(run.info.run_name for run in runs_of(client, "chaos"))

    def close(self) -> None:
        """Ends whatever is left of it."""
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR", "").startswith(str(self.temporary)):
                    process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(self.temporary, ignore_errors=True)


Action = Callable[[Sweep], None]
Preparation = Callable[[Sweep, ExitStack], None]


def first_difference(found: Any, wanted: Any, place: str = "") -> str:
    """Where two results differ, and how; an empty text if they are equal."""
    if found == wanted:
        return ""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = [
            (key, found.get(key), wanted.get(key)) for key in sorted(found.keys() | wanted.keys())
        ]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(found, wanted, strict=True))]
    inner = (first_difference(a, b, f"{place}.{key}") for key, a, b in pairs)
    return next(filter(None, inner), f"{place}: {found!r} instead of {wanted!r}")


@dataclass(frozen=True)
class Fault:
    """What happens to which sweep, and what its results must be."""

    name: str
    strike: Action = lambda sweep: None
    prepare: Preparation = lambda sweep, stack: None
    settings: tuple[str, ...] = ()
    baseline: str = "none"  # the fault-free run to be equal to
    expected: Callable[[list[dict[str, Any]]], bool] | None = None  # instead of being equal to one


def send(name: str, number: int) -> Action:
    """A signal to one of the sweep's Ray processes."""
    return lambda sweep: ray_processes(sweep.process, name)[0].send_signal(number)


def end_driver(number: int) -> Action:
    """A signal to the sweep itself, which ends by it."""

    def strike(sweep: Sweep) -> None:
        sweep.process.send_signal(number)
        sweep.process.wait(120)

    return strike


def interrupt_often(sweep: Sweep) -> None:
    """Five ends of the driver at random points, its start included."""
    rng = random.Random(0)
    for _ in range(5):
        time.sleep(rng.uniform(2, 14))
        end_driver(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))(sweep)
        sweep.start()


def suspend(sweep: Sweep) -> None:
    """SIGSTOP of a trial's actor, and SIGCONT."""
    process = ray_processes(sweep.process, TRIAL_ACTOR)[0]
    process.suspend()
    time.sleep(PAUSE_S)
    process.resume()


def on_cluster(sweep: Sweep, stack: ExitStack) -> None:
    """Has the sweep join a running cluster of two nodes, with room for one trial each.

    The nodes have temporary files of their own: they are still running afterwards, or were killed.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="r")))
    sweep.cluster = stack.enter_context(RayCluster(folder))
    for _ in range(2):
        start_node(sweep)
    sweep.environment |= sweep.cluster.credentials | {"RAY_ADDRESS": sweep.cluster.address}


def start_node(sweep: Sweep) -> None:
    """One node more."""
    folder = str(sweep.cluster.folder)
    sweep.cluster.start_node(
        "--num-cpus", "1", environment={"TMPDIR": folder, "RAY_TMPDIR": folder}
    )


def lose_and_return_node(sweep: Sweep) -> None:
    """Kills the second node's raylet and brings the node back, each once the trial's workers have
    followed.
    """

    def group_sizes() -> list[int]:
        log = StudyRecord(sweep.store, "chaos").trial(0).log
        lines = [json.loads(line) for line in log.splitlines()]
        return [line["num_workers"] for line in lines if line["event"] == "start"]

    wait_until(lambda: group_sizes() == [2], sweep.process, sweep.log)
    sweep.cluster.kill_raylet(1)
    wait_until(lambda: group_sizes() == [2, 1], sweep.process, sweep.log)
    start_node(sweep)
    wait_until(lambda: group_sizes() == [2, 1, 2], sweep.process, sweep.log)


def drain_node(sweep: Sweep) -> None:
    """Has a node where a trial runs announce its end, as a spot instance's does, and goes through
    with it.
    """
    sweep.cluster.drain(1, deadline_s=round(PAUSE_S))
    record = StudyRecord(sweep.store, "chaos")
    wait_until(
        lambda: any("PreemptedError" in record.trial(n).log for n in range(3)),
        sweep.process,
        sweep.log,
    )
    sweep.cluster.kill_raylet(1)


def on_s3(sweep: Sweep, stack: ExitStack) -> None:
    """Moves the store to an S3 server behind a proxy that can fail."""
    server = stack.enter_context(s3_server())
    server.create_bucket("bucket")
    behind, sweep.proxy = stack.enter_context(faulty_proxy(server))
    sweep.environment |= behind.environment() | {"VITACLIP_STORE": "s3://bucket/prefix"}


def fail_store(share: float, *faults: str) -> Action:
    """Has a share of all requests to the store fail for a while."""

    def strike(sweep: Sweep) -> None:
        sweep.proxy.faults, sweep.proxy.share = faults, share
        time.sleep(PAUSE_S)
        sweep.proxy.share = 0.0

    return strike


def on_mlflow_server(sweep: Sweep, stack: ExitStack) -> None:
    """Moves tracking to a server."""
    folder = sweep.folder / "server"
    folder.mkdir()
    sweep.mlflow = MlflowServer(folder)
    sweep.mlflow.start()
    stack.callback(lambda: sweep.mlflow.kill())
    sweep.environment["MLFLOW_TRACKING_URI"] = sweep.mlflow.uri


def restart_mlflow(sweep: Sweep) -> None:
    """Kills the tracking server and starts it again after a while."""
    sweep.mlflow.kill()
    time.sleep(PAUSE_S)
    sweep.mlflow.start()


def on_small_disk(sweep: Sweep, stack: ExitStack) -> None:
    """Gives temporary files a disk of their own (needs root)."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", sweep.temporary], check=True)
    stack.callback(lambda: subprocess.run(["umount", "-l", sweep.temporary], check=True))


def fill_disk(sweep: Sweep) -> None:
    """Takes the last byte of it for a while."""
    filler = sweep.temporary / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(2**20))
            file.flush()
    time.sleep(PAUSE_S / 3)
    filler.unlink()


def damage_video(sweep: Sweep, stack: ExitStack) -> None:
    """Makes one training video unreadable."""
    (sweep.folder / "motions" / "train_5.mp4").write_bytes(b"not a video" * 100)


def hang_video(sweep: Sweep, stack: ExitStack) -> None:
    """Makes reading one training video last for ever: a pipe that nobody writes to."""
    video = sweep.folder / "motions" / "train_5.mp4"
    video.rename(video.with_suffix(".good"))
    os.mkfifo(video)


def mend_video(sweep: Sweep) -> None:
    """Puts the video back once the first workers hang."""
    time.sleep(PAUSE_S / 2)
    video = sweep.folder / "motions" / "train_5.mp4"
    video.with_suffix(".good").replace(video)


def fails_first_trial_only(results: list[dict[str, Any]]) -> bool:
    """NaN: failed with its reason; the others go on."""
    first, *others = results
    failed = first["state"] == "failed" and "NonFiniteLossError" in first["reason"]
    return failed and all(result["state"] in ENDED_WELL for result in others)


def counts_broken_clips(results: list[dict[str, Any]]) -> bool:
    """Every trial met the broken clip and says so."""
    return all(r["state"] in ENDED_WELL and r["history"][0]["data/broken"] >= 1 for r in results)


def completes(results: list[dict[str, Any]]) -> bool:
    """Every trial, with each of its epochs once."""
    epochs = [[metrics["epoch"] for metrics in result["history"]] for result in results]
    once = all(found == list(range(1, len(found) + 1)) for found in epochs)
    return once and all(result["state"] in ENDED_WELL for result in results)


ENDED_WELL = ("complete", "pruned")  # pruned: asynchronously, where no other fault ends a trial
TWO = "none, 2 workers"
TWO_WORKERS = (
    "resources.num_workers=2",
    "resources.max_concurrent_trials=1",
    "search.num_trials=2",
)
NO_FAILURES = "resources.max_failures=0"  # preemptions have a budget of their own
# for faults that strike late: their trials must still run then
NEVER_PAUSED = "search.scheduler={name: none}"
LONG_PREEMPTED = (NO_FAILURES, NEVER_PAUSED, "train.epochs=100")
TWO_PREEMPTED = (*TWO_WORKERS, NO_FAILURES)
ELASTIC = (
    NEVER_PAUSED,
    "resources.num_workers=[1,2]",
    "resources.max_concurrent_trials=1",
    "search.num_trials=2",
    "train.epochs=400",
    "benchmarks=[]",
)
FIRST_DIVERGES = (
    "search.num_trials=3",  # all of them given
    "search_space.optimizer.lr.high=1e30",
    "search.first_points=[{optimizer.lr: 1e30},{optimizer.lr: 2e-3},{optimizer.lr: 3e-3}]",
)
SHORT_PATIENCE = ("resources.epoch_timeout_s=20", "resources.max_failures=9")
FAULTS = [
    Fault("none"),
    Fault("none, again"),
    Fault("SIGKILL trial actor", send(TRIAL_ACTOR, signal.SIGKILL)),
    Fault("SIGTERM trial actor", send(TRIAL_ACTOR, signal.SIGTERM), settings=(NO_FAILURES,)),
    Fault("SIGSTOP trial actor", suspend),
    Fault("SIGKILL driver", end_driver(signal.SIGKILL)),
    Fault("SIGTERM driver", end_driver(signal.SIGTERM)),
    Fault("Ctrl-C", end_driver(signal.SIGINT)),
    Fault("five random ends", interrupt_often),
    Fault("SIGKILL second raylet", lambda sweep: sweep.cluster.kill_raylet(1), on_cluster),
    Fault("second node drained", drain_node, on_cluster, LONG_PREEMPTED, expected=completes),
    Fault("store down", fail_store(1.0, "slow_down"), on_s3),
    Fault("store fails 30%", fail_store(0.3, *FaultyProxy.faults), on_s3),
    Fault("MLflow down", restart_mlflow, on_mlflow_server),
    Fault("disk full", fill_disk, on_small_disk),
    Fault("NaN loss", settings=FIRST_DIVERGES, expected=fails_first_trial_only),
    Fault(
        "NaN loss, 2 workers",
        settings=(*TWO_WORKERS, *FIRST_DIVERGES),
        expected=fails_first_trial_only,
    ),
    Fault("broken video", prepare=damage_video, expected=counts_broken_clips),
    Fault("hung decode", mend_video, hang_video, SHORT_PATIENCE),
    Fault(TWO, settings=TWO_WORKERS, baseline=TWO),
    Fault(
        "SIGKILL 1 worker of 2",
        send(TRAIN_WORKER, signal.SIGKILL),
        settings=TWO_WORKERS,
        baseline=TWO,
    ),
    Fault(
        "SIGTERM 1 worker of 2",
        send(TRAIN_WORKER, signal.SIGTERM),
        settings=TWO_PREEMPTED,
        baseline=TWO,
    ),
    Fault(
        "SIGKILL their actor", send(TRIAL_ACTOR, signal.SIGKILL), settings=TWO_WORKERS, baseline=TWO
    ),
    Fault("node lost and back", lose_and_return_node, on_cluster, ELASTIC, expected=completes),
]


@dataclass
class Matrix:
    """Runs faults in one mode and keeps what came of them."""

    mode: str
    references: dict[str, list[Any]] = field(default_factory=dict)  # histories, by training config
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, fault: Fault) -> str:
        """``ok``, or what is wrong."""
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            # what one fault sets the next one must not see
            stack.enter_context(patch.dict(os.environ))
            sweep = Sweep(Path(folder), (*MODES[self.mode], *fault.settings))
            stack.callback(sweep.close)
            started = time.monotonic()
            try:
                fault.prepare(sweep, stack)
                started = time.monotonic()
                sweep.start()
                sweep.wait_until_training(hangs=fault.strike is mend_video)
                fault.strike(sweep)
                sweep.finish()
                self.results[fault.name] = sweep.results()
                return self.verdict(fault, sweep)
            except Exception as error:  # one fault's row, not the end of the matrix
                return f"did not end: {type(error).__name__}: {error}"
            finally:
                self.seconds[fault.name] = time.monotonic() - started

    def verdict(self, fault: Fault, sweep: Sweep) -> str:
        found, left = self.results[fault.name], leftovers(sweep.temporary)
        numbers = [result["number"] for result in found]
        if numbers != list(range(len(numbers))) or len(numbers) < 2:
            return f"trials {numbers}"
        if fault.expected is not None and not fault.expected(found):
            return f"other results than expected: {[result['state'] for result in found]}"
        if wrong := self.wrong_decision(sweep) or self.wrong_numbers(fault, sweep):
            return wrong
        if sweep.run_names() != ["chaos", *(f"trial {number:04d}" for number in numbers)]:
            return f"MLflow shows {sweep.run_names()}"
        return f"left behind: {left}" if left else "ok"

    def wrong_decision(self, sweep: Sweep) -> str | None:
        """What is wrong with the study's decisions, in either mode."""
        record = StudyRecord(sweep.store, "chaos")
        places = [place_of(entry.decision) for entry in read_journal(record)]
        if len(set(places)) < len(places):
            return f"a decision was taken twice: {places}"
        difference = replay(record).difference
        return difference and f"other decisions: {difference}"

    def wrong_numbers(self, fault: Fault, sweep: Sweep) -> str | None:
        """What differs from undisturbed trainings."""
        if fault.expected is not None:
            return None
        found = self.results[fault.name]
        if self.mode == "lag":
            wanted: Any = self.results.get(fault.baseline)
        elif fault.baseline == TWO:
            wanted = [as_far_as(result, self.results[TWO][result["number"]]) for result in found]
            found = [as_far_as(other, result) for result, other in zip(wanted, found, strict=True)]
        else:
            record = StudyRecord(sweep.store, "chaos")
            trainings = [
                self.reference(sweep, record.trial(n).info.train) for n in range(len(found))
            ]
            wanted = [
                result | {"history": history[: len(result["history"])]}
                for result, history in zip(found, trainings, strict=True)
            ]
        difference = first_difference(found, wanted)
        return f"other results: {difference}" if difference else None

    def reference(self, sweep: Sweep, train: TrainConfig) -> list[Any]:
        """The history of a training by itself, in this process."""
        key = train.model_dump_json()
        if key not in self.references:
            with patch.dict(os.environ, sweep.environment):
                self.references[key] = untimed(list(fit(train).history))
        return self.references[key]

    def time_lost(self, fault: Fault) -> str:
        if fault.baseline not in self.seconds:
            return "-"
        return f"{self.seconds[fault.name] - self.seconds[fault.baseline]:+.0f} s"


def as_far_as(result: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two results of one trial have in common, if all is well: how far it was trained depends
    on the order of events.
    """
    num_epochs = min(len(result["history"]), len(other["history"]))
    return {"params": result["params"], "history": result["history"][:num_epochs]}


def main(arguments: list[str]) -> int:
    """Runs the matrix in the modes that are asked for; 1 if any fault is not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.drivers.chaos", description=__doc__)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("names", nargs="*", metavar="FAULT")
    options = parser.parse_args(arguments)
    return max(run_matrix(mode, options.names) for mode in options.mode or MODES)


def run_matrix(mode: str, names: list[str]) -> int:
    """Runs all faults, or the named ones with the baselines they need."""
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    needed = {fault.baseline for fault in chosen if fault.expected is None} | {
        fault.name for fault in chosen
    }
    matrix, table = (
        Matrix(mode),
        Table("fault", "afterwards", "seconds", "time lost", title=f"fault matrix, {mode}"),
    )
    failed = 0
    for fault in FAULTS:
        if fault.name in needed:
            verdict = matrix.run(fault)
            failed += verdict != "ok"
            print(
                f"{mode}: {fault.name}: {verdict} ({matrix.seconds[fault.name]:.0f} s)", flush=True
            )
            table.add_row(
                fault.name, verdict, f"{matrix.seconds[fault.name]:.0f}", matrix.time_lost(fault)
            )
    Console(width=120).print(table)
    print(f"pauses of {PAUSE_S:.0f} s are part of the time lost")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
