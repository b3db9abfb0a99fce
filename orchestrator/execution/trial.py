"""What runs in a trial's actor, which a slot keeps from trial to trial: the training itself if it
has one worker, else the control of a group of workers.
"""

from __future__ import annotations

from typing import Any

from ray import train, tune

from orchestrator.execution.ray_internals import raised_error
from orchestrator.execution.worker import Job, PreemptedError
from orchestrator.execution.worker_group import train_here, train_on_workers
from vitaclip.errors import CheckpointError, DataError, InputError, NonFiniteLossError

# The keys under which a trial reports why it ends early.
FAILURE = "failure"  # trying again would not help
PREEMPTION = "preemption"  # a machine of its is taken away: elsewhere it goes on
BREAKDOWN = "breakdown"  # a worker was lost
_HOPELESS = (CheckpointError, DataError, InputError, NonFiniteLossError)


def run_trial(config: dict[str, Any]) -> None:
    """The Tune trainable. ``config["job"]`` holds the fields of a
    :class:`orchestrator.execution.worker.Job`.
    """
    job = Job(**config["job"])
    try:
        resources = job.open_record().info.config.resources
        if resources.max_workers == 1:
            train_here(job, tune.report)
        else:
            train_on_workers(job, resources, tune.report)
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
