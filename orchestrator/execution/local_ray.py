"""An own Ray on this machine for the time of a sweep, which nobody else can reach or use.

Whoever may talk to Ray may run code. So all its processes listen on the loopback address only, and
answer nobody who lacks the sweep's token. The workers of one trial meet in a file and talk over the
loopback interface, for PyTorch's own meeting place, ``TCPStore``, listens on every address.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

from orchestrator.config import ResourcesConfig
from orchestrator.execution.ray_internals import (
    TorchBackend,
    join_process_group,
    may_cluster,
    reread_settings,
    set_torch_environment,
)
from orchestrator.execution.scratch import scratch_folder

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 256 * 2**20
# A worker that the others wait for this long fails the group. The first worker may keep them
# waiting: for the store, for room on its disk, for the driver's verdict.
_ANSWER_S = 1800


@contextmanager
def local_ray(num_cpus: int, resources: ResourcesConfig) -> Iterator[None]:
    """Runs Ray with ``num_cpus`` cores for trials until the end of the block."""
    # what Ray leaves lies in the folder: it is cleared up
    with (
        scratch_folder() as folder,
        _closed_to_others(),
    ):
        try:
            with _tracking_settings_hidden():
                ray.init(
                    address="local",
                    # more than there are, so that benchmarks need not wait for training
                    num_cpus=num_cpus + resources.cpus_per_worker,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address=_LOOPBACK,
                    _temp_dir=str(folder / "ray"),
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _closed_to_others() -> Iterator[None]:
    """Settings for this process, and for Ray's other processes, which inherit the environment."""
    interfaces = psutil.net_if_addrs().items()
    loopback = next(
        name for name, all_ in interfaces if any(address.address == _LOOPBACK for address in all_)
    )
    settings = {
        # "0": Ray takes the loopback address, and listens on no other
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
    }
    before = {name: os.environ.get(name) for name in settings}, may_cluster()
    _apply(settings, is_cluster=False)
    try:
        yield
    finally:
        _apply(*before)


def _apply(environment: Mapping[str, str | None], is_cluster: bool) -> None:
    """Changes the environment, and what Ray took from it when it was imported."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reread_settings(may_cluster=is_cluster)


@contextmanager
def _tracking_settings_hidden() -> Iterator[None]:
    """Ray's processes inherit the environment, but only the driver speaks to the tracking service
    and needs its credentials.
    """
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MLFLOW_TRACKING_") or name == "WANDB_API_KEY"
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def torch_config(resources: ResourcesConfig) -> TorchConfig:
    """How the workers of a trial find each other: on an own Ray in a file, on a cluster as Ray
    Train does it. Either way Ray Train makes a worker's own GPU its current device.
    """
    # NCCL refuses two workers that share a GPU.
    backend = "nccl" if resources.gpus_per_worker >= 1 else "gloo"
    is_local = ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback  # type: ignore[no-untyped-call]
    if not is_local:
        return TorchConfig(backend, timeout_s=_ANSWER_S)
    meeting = str(Path(tempfile.gettempdir()) / "meeting")
    return _FileTorchConfig(backend, timeout_s=_ANSWER_S, meeting=meeting)


@dataclass
class _FileTorchConfig(TorchConfig):
    """The path of the file, to which each worker group adds a name of its own."""

    meeting: str = ""

    @property
    def backend_cls(self) -> type[TorchBackend]:
        return _FileTorchBackend


class _FileTorchBackend(TorchBackend):
    """Ray Train's, but for the place where the workers meet."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        place = f"file://{backend_config.meeting}-{uuid.uuid4().hex}"
        worker_group.execute(set_torch_environment)
        size = len(worker_group)
        options = {
            "backend": backend_config.backend,
            "timeout_s": backend_config.timeout_s,
            "world_size": size,
            "init_method": place,
        }
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, join_process_group, world_rank=rank, **options
                )
                for rank in range(size)
            ]
        )
