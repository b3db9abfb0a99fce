"""A trial's training: in this process, or by the workers of a Ray Train group that stays for the
slot's next trial.

To start a group takes several seconds, nearly all of it new processes and their imports. So a
trial's actor keeps its group when a trial has ended: the processes, their process group and what
they have loaded. A group ends with the first fault, and with the actor.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from contextlib import suppress

import ray
from ray import train

from orchestrator.config import ResourcesConfig
from orchestrator.execution.cluster import a_group_waits
from orchestrator.execution.local_ray import torch_config
from orchestrator.execution.preemption import Notice
from orchestrator.execution.ray_internals import PausableTrainer, draining_nodes
from orchestrator.execution.scratch import scratch_folder
from orchestrator.execution.worker import Job, Report, train_worker

# of 20 s each (orchestrator/execution/__init__.py): half an hour for a lost node to come back
_START_ATTEMPTS = 90
# The next trial of a slot comes in less than a second. Where none comes, what waits for the place
# gets it: benchmarks, or another slot's group after a node was lost.
_KEEP_S = 3.0
_DONE = {"done": 1.0}  # reported by workers that wait for their next job
_jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # of this process, as a worker


def train_here(job: Job, report: Report) -> None:
    """Trains in this process, alone or as one of a group's workers."""
    with scratch_folder(), Notice() as notice:
        train_worker(job, report, notice.given)


def train_on_workers(job: Job, resources: ResourcesConfig, report: Report) -> None:
    """Trains on this process's group, or on a new one if it has none or cannot go on with it.

    Args:
        report: called in this thread with the metrics of every epoch.

    Raises:
        ray.train.TrainingFailedError: a worker failed, or none could be started; the group is gone.
    """
    group = _kept.take()
    if group is not None and not group.is_fit():
        group.close()
        group = None
    group = group or _Group(job, resources)
    group.train(job, report)
    if isinstance(resources.num_workers, int):
        _kept.put(group)
    else:
        group.close()  # it may hold workers without which another slot's group cannot start


class _Group:
    """Workers that train one job after the other."""

    def __init__(self, first: Job, resources: ResourcesConfig) -> None:
        self._job: Job | None = None
        # Ray writes a file to see whether the folder can be used, and no more: checkpoints go to
        # the study's store
        with tempfile.TemporaryDirectory() as folder:
            self._trainer = PausableTrainer(
                _serve,
                started=self._hand_out,
                reported=self._reported,
                torch_config=torch_config(resources),
                scaling_config=train.ScalingConfig(
                    num_workers=resources.num_workers,  # type: ignore[arg-type]
                    use_gpu=resources.gpus_per_worker > 0,
                    resources_per_worker=resources.per_worker,
                    placement_strategy=resources.placement.upper(),
                ),
                run_config=train.RunConfig(
                    name=f"{first.study}-{first.number:04d}",
                    storage_path=folder,
                    # the trial is tried again as a whole, by the driver: one budget, not one inside
                    # the other
                    failure_config=train.FailureConfig(  # type: ignore[call-arg]
                        max_failures=0, controller_failure_limit=_START_ATTEMPTS
                    ),
                ),
            )

    def train(self, job: Job, report: Report) -> None:
        """See :func:`train_on_workers`."""
        self._job, self._report = job, report
        self._hand_out()
        self._trainer.go_on()

    def is_fit(self) -> bool:
        """Whether all workers answer from nodes that stay, and no other group waits for a place."""
        try:
            nodes = self._trainer.ask_workers(_node)
        except ray.exceptions.RayError:
            return False
        return not draining_nodes().intersection(nodes) and not a_group_waits()

    def close(self) -> None:
        """Ends the workers, and gives back what they hold."""
        try:
            self._trainer.ask_workers(_receive, None)
        except ray.exceptions.RayError:
            self._trainer.kill_workers()
        with suppress(train.TrainingFailedError):
            self._trainer.go_on()

    def _hand_out(self) -> None:
        """Gives the job to the workers, if they have started; else it is called again then."""
        self._trainer.tell_workers(_receive, self._job)

    def _reported(self, metrics: dict[str, float]) -> None:
        if metrics == _DONE:
            self._job = None
            self._trainer.pause()
        else:
            self._report(metrics)


class _Kept:
    """The group that waits in this process for the next trial, for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group: _Group | None = None
        self._timer = threading.Timer(0, self._give_up)

    def put(self, group: _Group) -> None:
        with self._lock:
            self._group = group
            self._timer = threading.Timer(_KEEP_S, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def take(self) -> _Group | None:
        with self._lock:
            self._timer.cancel()
            group, self._group = self._group, None
            return group

    def _give_up(self) -> None:
        if group := self.take():
            group.close()


_kept = _Kept()


def _serve() -> None:
    """What every worker runs."""
    while (job := _jobs.get()) is not None:
        train_here(job, train.report)
        train.report(_DONE)


def _receive(job: Job | None) -> None:
    _jobs.put(job)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
