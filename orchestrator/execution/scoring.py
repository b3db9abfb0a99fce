"""Benchmarks of trained trials as Ray tasks.

Trials that finish while a benchmark is running wait and are then scored together: each video is
decoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from orchestrator.config import ResourcesConfig
from orchestrator.evaluation.benchmark import score_trials
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.execution.scratch import scratch_folder
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord


@ray.remote(max_retries=3)
def _score(store_uri: str, study: str, numbers: Sequence[int], benchmark: BenchmarkConfig) -> None:
    with scratch_folder():
        score_trials(StudyRecord(open_store(store_uri), study), numbers, benchmark)


@dataclass
class _Queue:
    """One benchmark: at most one task at a time."""

    benchmark: BenchmarkConfig
    waiting: list[int] = field(default_factory=list)
    # were in a task that failed: each gets its own
    suspects: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    task: Any = None


class Scorer:
    """Scores trials on all benchmarks of a study."""

    def __init__(
        self,
        store_uri: str,
        study: str,
        benchmarks: Iterable[BenchmarkConfig],
        resources: ResourcesConfig,
    ) -> None:
        """Starts no task yet.

        Args:
            store_uri: where the study's record is.
            study: the study's name.
            benchmarks: all of the study's.
            resources: what a task takes, as much as one worker of a trial.
        """
        self._queues = [_Queue(benchmark) for benchmark in benchmarks]
        self._missing: dict[int, int] = {}  # trial -> benchmarks to come
        self.has_scored = False  # any trial yet
        self.errors: dict[int, str] = {}
        self._place = (store_uri, study)
        self._task = _score.options(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            resources=resources.custom_per_worker,
        )

    @property
    def busy(self) -> bool:
        """Whether any score is still to come."""
        return any(queue.waiting or queue.suspects or queue.running for queue in self._queues)

    @property
    def num_waiting(self) -> int:
        """How many trials wait for a task of their own or together with others."""
        return max((len(queue.waiting) for queue in self._queues), default=0)

    @property
    def in_flight(self) -> bool:
        """Whether a task scores, or waits for Ray to give it its resources."""
        return any(queue.task is not None for queue in self._queues)

    def add(self, number: int) -> None:
        """Has a trained trial scored."""
        self._missing[number] = len(self._queues)
        for queue in self._queues:
            queue.waiting.append(number)

    def poll(self, timeout_s: float = 0, *, may_start: bool = True) -> list[int]:
        """Starts what can start, if anything may, and returns the trials whose last score has
        arrived since the last call.

        A trial that cannot be scored is kept in ``errors`` instead.
        """
        for queue in self._queues:
            if may_start and queue.task is None and (queue.waiting or queue.suspects):
                self._start(queue)
        tasks = [queue.task for queue in self._queues if queue.task is not None]
        done = ray.wait(tasks, num_returns=1, timeout=timeout_s)[0] if tasks else []
        for queue in self._queues:
            if queue.task in done:
                self._collect(queue)
        scored = [number for number, missing in self._missing.items() if missing == 0]
        for number in scored:
            del self._missing[number]
        self.has_scored |= bool(scored)
        return scored

    def _start(self, queue: _Queue) -> None:
        if queue.suspects:
            queue.running = [queue.suspects.pop()]
        else:
            queue.running, queue.waiting = queue.waiting, []
        queue.task = self._task.remote(*self._place, queue.running, queue.benchmark)

    def _collect(self, queue: _Queue) -> None:
        numbers, task = queue.running, queue.task
        queue.running, queue.task = [], None
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            self._failed(queue, numbers, error)
        else:
            for number in numbers:
                self._missing[number] -= 1

    def _failed(
        self, queue: _Queue, numbers: Sequence[int], error: ray.exceptions.RayError
    ) -> None:
        if len(numbers) > 1:
            queue.suspects.extend(numbers)
            return
        cause = getattr(error, "cause", None) or error
        self.errors[numbers[0]] = f"{queue.benchmark.name}: {type(cause).__name__}: {cause}"
