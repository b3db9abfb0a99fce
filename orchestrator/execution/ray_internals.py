"""Everything of Ray that is not its public interface, and that this project uses all the same.

Ray may change any of it without notice: the range of versions in ``pyproject.toml`` ends with the
last one that this file was tested with. No other file imports a private part of Ray, which
``tests/unit/repository/test_private_imports.py`` checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ray
from ray import train
from ray._private import ray_constants
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.train.torch import TorchTrainer
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

TorchBackend = _TorchBackend
set_torch_environment = _set_torch_distributed_env_vars
join_process_group = _setup_torch_process_group
_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)

__all__ = [
    "GcsClient",
    "GetClusterStatusReply",
    "InProcessTrainer",
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
    "reread_settings",
    "set_torch_environment",
]


class InProcessTrainer(TorchTrainer):
    """Ray Train with its controller in the trial's actor, which would only wait for it.

    That saves processes and their start, and reports need no queue between the two: Ray's own way,
    ``TuneReportCallback``, comes to a deadlock when the training function returns while a report is
    in the queue.
    """

    def _initialize_and_run_controller(self, **parts: Any) -> train.Result:
        controller = TrainController(**parts)
        asyncio.run(controller.run())  # type: ignore[no-untyped-call]
        return controller.get_result()

    def _create_default_callbacks(self) -> list[Any]:
        """Without a process for Ray's datasets, and without the cleaner.

        This is a process per trial that outlives it, and that is blind without a dashboard;
        :func:`orchestrator.execution.cluster.free_dead_groups` does its work.
        """
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in callbacks if not isinstance(callback, _UNUSED)]


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


def draining_nodes() -> set[str]:
    """The ids of nodes that are about to be taken away."""
    return set(ray._private.state.state.get_draining_nodes())


def placement_groups() -> Iterator[Any]:
    """The rows of the cluster's table of placement groups."""
    accessor = ray._private.state.state._connect_and_get_accessor()
    return map(PlacementGroupTableData.FromString, accessor.get_placement_group_table())
