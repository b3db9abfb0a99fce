"""What runs in a trial's actor: the training itself if it has one worker, else a Ray Train worker group.

Both call :func:`orchestrator.worker.train_worker`. A one-worker trial inside a reused actor starts in a
fraction of a second; a nested ``TorchTrainer`` takes over ten (see docs), so it is used where it is needed:
for several workers.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.scratch import scratch_folder
from orchestrator.worker import Job, train_worker
from vitaclip.errors import CheckpointError, DataError, InputError, NonFiniteLossError

FAILURE = "failure"  # the key under which a trial reports why trying again would not help
_HOPELESS = (CheckpointError, DataError, InputError, NonFiniteLossError)


def run_trial(config: dict[str, Any]) -> None:
    """The Tune trainable. ``config["job"]`` holds the fields of a :class:`orchestrator.worker.Job`."""
    job = Job(**config["job"])
    with scratch_folder() as folder:
        try:
            if job.resources.num_workers == 1:
                train_worker(job, tune.report)
            else:
                _train_on_workers(job, folder)
        except (*_HOPELESS, train.WorkerGroupError) as error:
            if (reason := _hopeless(error)) is None:
                raise
            tune.report({FAILURE: f"{type(reason).__name__}: {reason}"})


def _hopeless(error: Exception) -> Exception | None:
    """The error, of one worker or of the group's, after which trying again would end the same; None: it might not."""
    errors = [error]
    if isinstance(error, train.WorkerGroupError):
        errors = [getattr(failure, "_base_exc", failure) for failure in error.worker_failures.values()]
    return next((one for one in errors if isinstance(one, _HOPELESS)), None)


def _train_on_workers(job: Job, folder: Path) -> None:
    resources = job.resources
    _Trainer(
        _worker,
        train_loop_config=asdict(job),
        scaling_config=train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.per_worker,
            placement_strategy=resources.placement.upper(),
        ),
        run_config=train.RunConfig(
            name=f"{job.study}-{job.number:04d}",
            storage_path=str(folder),  # Ray's own notes only: checkpoints go to the study's store
            # the trial is tried again as a whole, as often as Tune allows: one budget, not one inside the other
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=2),  # type: ignore[call-arg]
            callbacks=[TuneReportCallback()],  # type: ignore[list-item, no-untyped-call]
        ),
    ).fit()


class _Trainer(TorchTrainer):
    """Without Ray Train's cleaner: a process per trial that outlives it, and that is blind without a dashboard.

    :func:`orchestrator.cluster.free_dead_groups` does its work.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


def _worker(config: dict[str, Any]) -> None:
    with scratch_folder():
        train_worker(Job(**config), train.report)
