"""What runs in a trial's actor: the training itself if it has one worker, else a Ray Train worker
group.

Both call :func:`orchestrator.execution.worker.train_worker`. A one-worker trial inside a reused
actor starts in a fraction of a second; a worker group takes several, so it is used where it is
needed: for several workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import train, tune

from orchestrator.config import ResourcesConfig
from orchestrator.execution.local_ray import torch_config
from orchestrator.execution.preemption import Notice
from orchestrator.execution.ray_internals import InProcessTrainer, raised_error
from orchestrator.execution.scratch import scratch_folder
from orchestrator.execution.worker import Job, PreemptedError, train_worker
from vitaclip.errors import CheckpointError, DataError, InputError, NonFiniteLossError

# The keys under which a trial reports why it ends early.
FAILURE = "failure"  # trying again would not help
PREEMPTION = "preemption"  # a machine of its is taken away: elsewhere it goes on
BREAKDOWN = "breakdown"  # a worker was lost
# of 20 s each (orchestrator/execution/cluster.py): half an hour for a lost node to come back
_START_ATTEMPTS = 90
_HOPELESS = (CheckpointError, DataError, InputError, NonFiniteLossError)


def run_trial(config: dict[str, Any]) -> None:
    """The Tune trainable. ``config["job"]`` holds the fields of a
    :class:`orchestrator.execution.worker.Job`.
    """
    job = Job(**config["job"])
    with scratch_folder() as folder:
        try:
            resources = job.open_record().info.config.resources
            if resources.max_workers == 1:
                _train(job, tune.report)
            else:
                _train_on_workers(job, resources, folder)
        except Exception as error:
            tune.report(_explained(error))
            if not isinstance(error, (train.TrainingFailedError, *_HOPELESS)):
                raise  # with the error ends this process, whose state or machine may be to blame


def _explained(error: Exception) -> dict[str, str]:
    if reason := _cause(error, _HOPELESS):
        return {FAILURE: f"{type(reason).__name__}: {reason}"}
    if reason := _cause(error, (PreemptedError,)):
        return {PREEMPTION: f"{type(reason).__name__}: {reason}"}
    return {BREAKDOWN: f"{type(error).__name__}: {_last_line(error)}"}


def _last_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "")


def _cause(error: Exception, kinds: tuple[type[Exception], ...]) -> Exception | None:
    """The error, of one worker or of the group's, that is of one of these kinds."""
    errors = [error]
    if isinstance(error, train.WorkerGroupError):
        errors = [raised_error(failure) for failure in error.worker_failures.values()]
    return next((error for error in errors if isinstance(error, kinds)), None)


def _train(job: Job, report: Callable[[dict[str, float]], None]) -> None:
    with Notice() as notice:
        train_worker(job, report, notice.given)


def _train_on_workers(job: Job, resources: ResourcesConfig, folder: Path) -> None:
    InProcessTrainer(
        _worker,
        train_loop_config=asdict(job),
        torch_config=torch_config(),
        scaling_config=train.ScalingConfig(
            num_workers=resources.num_workers,  # type: ignore[arg-type]
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.per_worker,
            placement_strategy=resources.placement.upper(),
        ),
        run_config=train.RunConfig(
            name=f"{job.study}-{job.number:04d}",
            storage_path=str(folder),  # Ray's own notes only: checkpoints go to the study's store
            # the trial is tried again as a whole, by the driver: one budget, not one inside the
            # other
            failure_config=train.FailureConfig(  # type: ignore[call-arg]
                max_failures=0, controller_failure_limit=_START_ATTEMPTS
            ),
            callbacks=[_ReportToTune()],  # type: ignore[list-item]
        ),
    ).fit()


class _ReportToTune(train.UserCallback):
    """Passes on what the first worker reports; all workers wait until Tune has taken it."""

    def after_report(
        self,
        run_context: Any,
        metrics: Sequence[dict[str, float]],
        checkpoint: train.Checkpoint | None,
    ) -> None:
        tune.report(metrics[0])


def _worker(config: dict[str, Any]) -> None:
    with scratch_folder():
        _train(Job(**config), train.report)
