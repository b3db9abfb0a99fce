"""Everything of Ray that is not its public interface, and that this project uses all the same.

Ray may change any of it without notice: the range of versions in ``pyproject.toml`` ends with the
last one that this file was tested with. No other file imports a private part of Ray, which
``tests/unit/repository/test_private_imports.py`` checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import (  # type: ignore[attr-defined]
    PlacementGroupStats,
    PlacementGroupTableData,
)
from ray.train.torch import TorchTrainer
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

TorchBackend = _TorchBackend
set_torch_environment = _set_torch_distributed_env_vars
join_process_group = _setup_torch_process_group
_ANSWER_S = 10.0  # workers that wait answer in milliseconds
_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)

__all__ = [
    "GcsClient",
    "GetClusterStatusReply",
    "PausableTrainer",
    "PlacementGroupStats",
    "TorchBackend",
    "canonicalize_bootstrap_address",
    "draining_nodes",
    "forget_statistics",
    "is_autoscaler_v2",
    "join_process_group",
    "keep_keys_out_of_trials",
    "may_cluster",
    "placement_groups",
    "raised_error",
    "release_idle_actors",
    "reread_settings",
    "set_torch_environment",
]


class PausableTrainer(TorchTrainer):
    """Ray Train with its controller in the trial's actor, which would only wait for it.

    That saves processes and their start, and reports need no queue between the two: Ray's own way,
    ``TuneReportCallback``, comes to a deadlock when the training function returns while a report is
    in the queue.

    The controller is a coroutine, and runs only within :meth:`go_on`. While it is paused the
    workers are left alone, with all that they have in memory. Each call may come from another
    thread.
    """

    def __init__(
        self,
        train_loop: Callable[[], None],
        *,
        started: Callable[[], None],
        reported: Callable[[dict[str, Any]], None],
        **parts: Any,
    ) -> None:
        """Starts no worker yet.

        Args:
            train_loop: what every worker runs.
            started: called in ``go_on`` each time that workers have started: at first, and with
                another number of them.
            reported: called in ``go_on`` with what the first worker reports.
            parts: of Ray's ``TorchTrainer``.
        """
        super().__init__(train_loop, **parts)
        self._follower = _Follower(started, reported)
        self._loop = asyncio.new_event_loop()
        super().fit()

    def go_on(self) -> None:
        """Runs until something calls ``pause``, or until the workers' loops have ended.

        Raises:
            ray.train.TrainingFailedError: a worker failed, or none could be started.
        """
        self._loop.run_forever()
        if self._run.done():
            self._loop.close()
            self._run.result()
            if error := self._controller.get_result().error:
                raise error

    def pause(self) -> None:
        """Has ``go_on`` return."""
        self._loop.stop()

    def tell_workers(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Has each worker that there is call the function beside its loop. A dead one is noticed in
        ``go_on``.
        """
        if self._follower.workers is not None:
            self._follower.workers.execute_async(function, *arguments)

    def ask_workers(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The same, and what the function returned on each.

        Raises:
            ray.exceptions.RayError: a worker is dead, or does not answer in time.
        """
        answers = self._follower.workers.execute_async(function, *arguments)
        return list(ray.get(answers, timeout=_ANSWER_S))

    def kill_workers(self) -> None:
        """Ends their processes, whatever they do; the next ``go_on`` clears up."""
        if self._follower.workers is not None:
            for worker in self._follower.workers.get_workers():
                ray.kill(worker.actor)

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        """Called by ``fit``, which looks at the result's error."""
        self._controller = TrainController(**parts)
        run = self._controller.run()  # type: ignore[no-untyped-call]
        self._run = self._loop.create_task(run)
        self._run.add_done_callback(lambda _: self._loop.stop())
        return SimpleNamespace(error=None)

    def _create_default_callbacks(self) -> list[Any]:
        """Without a process for Ray's datasets, and without the cleaner.

        This is a process per trial that outlives it, and that is blind without a dashboard;
        :func:`orchestrator.execution.cluster.free_dead_groups` does its work.
        """
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        wanted = [callback for callback in callbacks if not isinstance(callback, _UNUSED)]
        return [*wanted, self._follower]


class _Follower(WorkerGroupCallback, ReportCallback):
    """Hears from the controller, in its process."""

    def __init__(
        self, started: Callable[[], None], reported: Callable[[dict[str, Any]], None]
    ) -> None:
        self.workers: Any = None
        self._started = started
        self._reported = reported

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        self.workers = worker_group
        self._started()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self.workers = None

    def after_report(self, training_report: Any, metrics: Sequence[dict[str, Any]]) -> None:
        self._reported(metrics[0])


def raised_error(failure: Exception) -> Exception:
    """What a worker of Ray Train raised, without what Ray wraps around it."""
    return getattr(failure, "_base_exc", failure)


def may_cluster() -> bool:
    """Whether Ray's processes may listen on addresses that other machines reach."""
    return bool(ray_constants.ENABLE_RAY_CLUSTER)


def reread_settings(*, may_cluster: bool) -> None:
    """Makes Ray read again from the environment what it took when it was imported."""
    ray_constants.ENABLE_RAY_CLUSTER = may_cluster
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def keep_keys_out_of_trials() -> None:
    """Tune would put the driver's keys into each trial's runtime environment, which Ray logs and
    its dashboard shows.
    """
    class_cache.ENV_VARS_TO_PROPAGATE -= {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
    }


def forget_statistics(trial: Trial) -> None:
    """Tune keeps statistics of every metric of every ended trial: half of what a trial leaves in
    the driver.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


def release_idle_actors(controller: Any) -> None:
    """Has Tune end the actor that it keeps for the next trial, so that others get its place.

    Tune only asks for the next trial while none runs: what else it does in a step is done here.
    """
    tune = controller._tune_controller
    tune._cleanup_cached_actors(force_all=True)
    if not tune._running_trials:
        tune._actor_manager.next(timeout=0.1)


def draining_nodes() -> set[str]:
    """The ids of nodes that are about to be taken away."""
    return set(ray._private.state.state.get_draining_nodes())


def placement_groups() -> Iterator[Any]:
    """The rows of the cluster's table of placement groups."""
    accessor = ray._private.state.state._connect_and_get_accessor()
    return map(PlacementGroupTableData.FromString, accessor.get_placement_group_table())
