"""A study run without Ray: seeded interleavings of everything that can happen, with a crash at any
write.

The store is in memory and dies after a given number of writes; what a simulated training reports
depends on its parameters alone, so every order of events must end in the same record.

    python -m testing.study_simulation 5000        # a longer run; prints the seeds that fail
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.config import StudyConfig
from orchestrator.search.replay import replay
from orchestrator.search.stopping.rule import misses_threshold
from orchestrator.search.study import Study
from orchestrator.storage.attempts import SupersededError, begin_attempt
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.journal import OtherDriverError, read_journal
from orchestrator.storage.records.decision import Decision, GaveUp, Proposed
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.base import MANIFEST, MissingKeyError, Store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.verdicts import goes_on
from testing.study_fixtures import PROVENANCE, study_config, write_checkpoint
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError

NUM_EPOCHS = 4


class CrashError(Exception):
    """The driver dies here."""


class MemoryStore(Store):
    """Keys in a dictionary; writing fails once ``writes_left`` are done."""

    def __init__(self) -> None:
        self.uri = "memory"
        self.content: dict[str, bytes] = {}
        self.writes_left = math.inf

    def _put(self, key: str, data: bytes) -> None:
        if self.writes_left <= 0:
            raise CrashError
        self.writes_left -= 1
        self.content[key] = data

    def _create(self, key: str, data: bytes) -> bool:
        if key not in self.content:
            self._put(key, data)
            return True
        return False

    def _get(self, key: str) -> bytes:
        if key not in self.content:
            raise MissingKeyError(key)
        return self.content[key]

    def _upload_file(self, path: Path, key: str) -> None:
        self._put(key, path.read_bytes())

    def _download_file(self, key: str, path: Path) -> None:
        path.write_bytes(self._get(key))

    def _delete_keys(self, keys: list[str]) -> None:
        for key in keys:
            self.content.pop(key, None)

    def exists(self, key: str) -> bool:
        return key in self.content

    def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self.content if key.startswith(f"{prefix}/" if prefix else ""))

    def versions(self, prefix: str) -> dict[str, str]:
        return {k: hashlib.sha256(self.content[k]).hexdigest() for k in self.list(prefix)}


class SimulatedRecord(StudyRecord):
    """Checkpoints hold what they say of themselves and nothing else: their tensors are tested
    elsewhere.
    """

    def publish(self, number: int, attempt: int, history: list[dict[str, float]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), TrainConfig(), history)
            publish_checkpoint(self, number, attempt, Path(folder), history)

    def train(self, number: int, history: list[dict[str, float]]) -> None:
        """An attempt of its own that publishes once."""
        attempt = begin_attempt(self, number)
        assert attempt is not None
        self.publish(number, attempt.number, history)


def epoch_metrics(trial: TrialInfo, epoch: int) -> dict[str, float]:
    """Training, as a function of its parameters. One depth and high learning rates never report the
    objective.
    """
    depth, lr = trial.train.prompts.depth or 0, trial.train.optimizer.lr
    metrics = {"epoch": epoch, "time/epoch_s": 1.0}
    if depth != 3 and lr < 8e-3:
        quality = 1 - abs(math.log10(lr) + 3) / 3 + 0.05 * depth + 0.001 * trial.train.seed
        metrics |= {"val/top1": quality * epoch / (epoch + 1), "val/loss": depth + lr}
    return metrics


@dataclass
class Simulation:
    """One interleaving, from the first start to the last result."""

    config: StudyConfig
    rng: random.Random
    crash: bool = True
    num_drivers: int = 1  # two: the lease is lost and the old driver does not know it yet
    store: MemoryStore = field(default_factory=MemoryStore)
    num_crashes: int = 0

    def run(self) -> list[dict[str, Any]]:
        """Drivers die and are started again until one comes to the end. Returns the results without
        times.
        """
        while True:
            budget = self.rng.randrange(1, 25) if self.crash else math.inf
            self.store.writes_left = budget
            try:
                self.run_drivers()
                return self.results()
            except CrashError:
                self.num_crashes += 1
                self.check_readable()

    def run_drivers(self) -> None:
        drivers = [Driver(self)]
        while drivers:
            if len(drivers) < self.num_drivers and self.rng.random() < 0.05:
                drivers.append(Driver(self))
            driver = self.rng.choice(drivers)
            try:
                driver.step()
            except OtherDriverError:
                assert len(drivers) > 1 or self.num_drivers > 1
                drivers.remove(driver)
                drivers = drivers or [Driver(self)]
            if driver in drivers and driver.finished:
                drivers.remove(driver)

    def check_decisions(self) -> None:
        """Each decision was taken once, comes out again, and has its due consequence."""
        record = SimulatedRecord(self.store, self.config.name)
        replayed = replay(record)
        assert replayed.difference is None, replayed.difference
        decided = [str(place_of(entry.decision)) for entry in read_journal(record)]
        assert len(set(decided)) == len(decided), decided
        for result in record.results():
            trial = record.trial(result.number).info
            for metrics in result.history:
                expected = epoch_metrics(trial, int(metrics["epoch"]))
                assert {**metrics, "time/epoch_s": 1.0} == expected

    def results(self) -> list[dict[str, Any]]:
        """What must not depend on the interleaving."""
        record = SimulatedRecord(self.store, self.config.name)
        for result in record.results():
            assert result.checkpoint is None or self.store.exists(f"{result.checkpoint}/{MANIFEST}")
        # attempts are counted in the checkpoint's name
        dropped = {
            "proposed_at",
            "finished_at",
            "checkpoint",
        }
        return [result.model_dump(exclude=dropped) for result in record.results()]

    def check_readable(self) -> None:
        """The record must be whole after every prefix of writes."""
        self.store.writes_left = math.inf
        record = SimulatedRecord(self.store, self.config.name)
        if record.exists():
            assert [trial.number for trial in record.trials()] == list(range(len(record.trials())))
            Study(self.config, record)
            assert replay(record).difference is None


def place_of(decision: Decision) -> tuple[object, ...]:
    """What may be decided once."""
    if isinstance(decision, GaveUp):
        return (decision.kind, decision.trials)
    if isinstance(decision, Proposed):
        return (decision.kind, decision.trial)
    return (decision.kind == "promote", decision.trial, decision.epoch)


@dataclass
class Worker:
    """One attempt at a trial: what it holds in memory."""

    trial: TrialInfo
    attempt: int
    history: list[dict[str, float]]


class Driver:
    """One process: what it holds in memory is lost when it dies; its orphaned workers may go on for
    a while.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.rng = simulation.rng
        self.record = SimulatedRecord(simulation.store, simulation.config.name)
        self.record.create_or_check(simulation.config, PROVENANCE)
        self.study = Study(simulation.config, self.record)
        self.study.take_over()
        self.slots = simulation.config.resources.max_concurrent_trials
        self.training: dict[int, Worker] = {}
        self.given_up: list[Worker] = []
        self.scoring = list(self.study.unscored)
        self.ended: list[int] = []
        self.exhausted = self.search_ended = False

    @property
    def finished(self) -> bool:
        return self.search_ended and not self.scoring

    def step(self) -> None:
        """One thing happens."""
        if self.exhausted and not self.search_ended:
            self.end_search()
            return
        can_start = not self.exhausted and len(self.training) < self.slots
        events = [self.start] * can_start + [self.epoch] * 4 * bool(self.training)
        events += [self.lose_one] * bool(self.training) + [self.come_back] * bool(self.given_up)
        events += [self.score] * bool(self.scoring) + [self.repeat_end] * bool(self.ended)
        self.rng.choice(events)()

    def start(self) -> None:
        trial = self.study.next_trial()
        if trial is None:
            self.exhausted = True
        elif trial == "wait":
            assert self.training, "waits although nothing is running"
        else:
            self.training[trial.number] = self.begin(trial)

    def begin(self, trial: TrialInfo) -> Worker:
        attempt = begin_attempt(self.record, trial.number)
        history = self.record.trial(trial.number).history
        if history and history[-1]["epoch"] in trial.judged_epochs:
            self.study.epoch_ended(trial.number, history[-1])
        return Worker(trial, 0 if attempt is None else attempt.number, history)

    def epoch(self) -> None:
        worker = self.rng.choice(list(self.training.values()))
        trial = worker.trial
        over = self.is_over(worker)
        assert over is not None, "a worker waits for a verdict for ever"
        if over:
            del self.training[trial.number]
            self.end(trial.number)
        else:
            self.train(worker)

    def is_over(self, worker: Worker) -> bool | None:
        """Whether a worker ends itself, as the real one decides it; None: it waits to be told."""
        trial, history = worker.trial, worker.history
        if not history:
            return False
        epoch = int(history[-1]["epoch"])
        if epoch >= trial.last_epoch:
            return True
        if epoch in trial.judged_epochs:
            verdict = goes_on(self.record, trial.number, epoch)
            return None if verdict is None else not verdict
        return misses_threshold(history, trial.thresholds, self.record.objective)

    def end_search(self) -> None:
        """Nothing runs and nothing is left to run."""
        self.scoring += self.study.end_search()
        self.search_ended = True

    def lose_one(self) -> None:
        """A worker is lost."""
        self.break_off(self.rng.choice(list(self.training)))

    def break_off(self, number: int) -> None:
        """The trial goes on from its last checkpoint, when its turn comes."""
        worker = self.training.pop(number)
        self.given_up.append(worker)
        if not self.study.resume(number):
            self.end(number)

    def come_back(self) -> None:
        """A worker that was given up goes on where it stood still."""
        worker = self.rng.choice(self.given_up)
        trial = worker.trial
        if self.is_over(worker) is not False:
            return
        metrics = epoch_metrics(
            trial, int(worker.history[-1]["epoch"]) + 1 if worker.history else 1
        )
        metrics["time/epoch_s"] = 7.0
        with suppress(SupersededError, InputError):
            if trial.number in self.training or trial.number in self.study.outcomes:
                self.record.publish(trial.number, worker.attempt, [*worker.history, metrics])
                raise AssertionError("a worker that was superseded published a checkpoint")

    def train(self, worker: Worker) -> None:
        trial, history = worker.trial, worker.history
        done = history or ([] if trial.parent is None else self.record.trial(trial.parent).history)
        metrics = epoch_metrics(trial, int(done[-1]["epoch"]) + 1 if done else 1)
        if "val/top1" in metrics:
            try:
                self.record.publish(trial.number, worker.attempt, [*history, metrics])
                worker.history = [*history, metrics]
            except SupersededError:  # by the other driver's worker
                del self.training[trial.number]
                if not self.study.resume(trial.number):
                    self.end(trial.number)
                return
            if self.rng.random() < 0.1:  # lost before it could report
                self.break_off(trial.number)
            else:
                self.study.epoch_ended(trial.number, metrics)
        else:  # as the worker does: publishing needs the objective
            del self.training[trial.number]
            self.end(trial.number, "InputError: no objective")

    def end(self, number: int, error: str | None = None) -> None:
        if self.study.training_ended(number, error) is None:
            return  # it is paused
        if error is None:
            self.ended.append(number)
        self.scoring.append(number)

    def repeat_end(self) -> None:
        """A message that comes twice, or late."""
        number = self.rng.choice(self.ended)
        before = self.study.outcomes[number]
        assert self.study.training_ended(number) == before

    def score(self) -> None:
        number = self.rng.choice(self.scoring)
        self.study.finish(number)
        self.scoring.remove(number)


SEARCHES: list[dict[str, Any]] = [
    {"num_trials": 10, "sampler": {"name": "random"}},
    {
        "num_trials": 9,
        "sampler": {"name": "tpe", "num_startup_trials": 3},
        "scheduler": {"name": "asha"},
    },
    {
        "num_trials": 10,
        "sampler": {"name": "random"},
        "scheduler": {"name": "median"},
        "patience": 4,
    },
    {"num_trials": 9, "num_repeats": 3, "sampler": {"name": "tpe", "num_startup_trials": 2}},
    {
        "num_trials": 14,
        "sampler": {"name": "nsgaii", "num_startup_trials": 4},
        "objectives": [{"metric": "val/top1"}, {"metric": "val/loss", "mode": "min"}],
        "first_points": [{"prompts.depth": 3}, {"prompts.depth": 0, "optimizer.lr": 1e-3}],
    },
    {
        "num_trials": 14,
        "sampler": {"name": "cmaes", "num_startup_trials": 2},
        "scheduler": {"name": "hyperband"},
    },
    {"num_trials": 6, "sampler": {"name": "qmc"}},
    {
        "num_trials": 20,
        "sampler": {"name": "random"},
        "scheduler": {"name": "pbt", "population": 5},
    },
]


ASYNCHRONOUS_SEARCHES: list[dict[str, Any]] = [
    *SEARCHES,
    {
        "num_trials": 12,
        "sampler": {"name": "tpe", "num_startup_trials": 2},
        "scheduler": {"name": "asha", "reduction_factor": 2, "form": "stopping"},
        "first_points": [{"prompts.depth": 0}],
    },
    {
        "num_trials": 12,
        "sampler": {"name": "tpe", "num_startup_trials": 2},
        "scheduler": {"name": "asha", "reduction_factor": 2},
        "objectives": [{"metric": "val/top1"}, {"metric": "val/loss", "mode": "min"}],
    },
    {
        "num_trials": 12,
        "num_repeats": 2,
        "sampler": {"name": "gp", "num_startup_trials": 2},
        "scheduler": {"name": "hyperband", "reduction_factor": 2},
    },
    {
        "num_trials": 12,
        "sampler": {"name": "cmaes", "num_startup_trials": 2},
        "scheduler": {"name": "asha", "reduction_factor": 2},
    },
]


def config_of(search: dict[str, Any], seed: int, slots: int, lag: int | None = 4) -> StudyConfig:
    """A study of a simulated training.

    Args:
        search: its search, but for what follows.
        seed: the search's.
        slots: how many trials train at once.
        lag: None: it is asynchronous.
    """
    lr = {"optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}}
    depth = {"prompts.depth": {"type": "int", "low": 0, "high": 8}}
    breeds = search.get("scheduler", {}).get("name") == "pbt"
    return study_config(
        train={"epochs": NUM_EPOCHS},
        search_space=lr if breeds else depth | lr,
        search=search | {"seed": seed, "lag": lag},
        resources={"max_concurrent_trials": slots},
        benchmarks=[],
    )


def undisturbed(search: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """The study run one trial after the other without a crash."""
    return Simulation(config_of(search, seed, slots=1), random.Random(0), crash=False).run()


def disturbed(search: dict[str, Any], seed: int, interleaving: int) -> list[dict[str, Any]]:
    """The same study on up to four slots, with crashes and sometimes a second driver."""
    rng = random.Random(interleaving)
    config = config_of(search, seed, slots=rng.randint(1, 4))
    return Simulation(config, rng, num_drivers=rng.randint(1, 2)).run()


def check_asynchronous(search: dict[str, Any], seed: int, interleaving: int) -> Simulation:
    """The same, asynchronously. Raises AssertionError unless each decision was taken once and comes
    out again, and each trial's numbers are those of an undisturbed training.
    """
    rng = random.Random(interleaving)
    config = config_of(search, seed, slots=rng.randint(1, 4), lag=None)
    simulation = Simulation(config, rng, num_drivers=rng.randint(1, 2))
    results = simulation.run()
    num_trials = len(results) if config.search.patience else config.search.num_trials
    assert [result["number"] for result in results] == list(range(num_trials))
    simulation.check_decisions()
    return simulation


def main(num_interleavings: int) -> int:
    """Many interleavings of every search, in both modes; returns how many went wrong."""
    failed = 0
    for index, search in enumerate(SEARCHES):
        expected = undisturbed(search, seed=index)
        for interleaving in range(num_interleavings):
            if disturbed(search, index, interleaving) != expected:
                failed += 1
                print(f"search {index}, interleaving {interleaving}: another record")
        print(f"search {index} ({search['sampler']['name']}), lag: {num_interleavings}")
    for index, search in enumerate(ASYNCHRONOUS_SEARCHES):
        for interleaving in range(num_interleavings):
            try:
                check_asynchronous(search, index, interleaving)
            except AssertionError as error:
                failed += 1
                print(f"search {index}, interleaving {interleaving}, asynchronous: {error!r}")
        print(f"search {index} ({search['sampler']['name']}), asynchronous: {num_interleavings}")
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]))))
