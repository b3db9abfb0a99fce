"""How the workers of a trial meet: by which back end, for how long, and on which device."""

from __future__ import annotations

import pytest
import ray
import torch

from orchestrator.config import ResourcesConfig
from orchestrator.execution.local_ray import torch_config


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize(
    ("gpus_per_worker", "backend"), [(0, "gloo"), (0.5, "gloo"), (1, "nccl"), (2, "nccl")]
)
def test_workers_that_share_a_gpu_do_not_meet_by_nccl(
    address: str, gpus_per_worker: float, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    config = torch_config(ResourcesConfig(gpus_per_worker=gpus_per_worker))
    assert (config.backend, config.timeout_s) == (backend, 1800)


def test_a_worker_computes_on_the_gpu_that_ray_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cuda", 3))
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    # Ray Train enters it around what a worker runs.
    with torch_config(ResourcesConfig(num_workers=2, gpus_per_worker=1)).train_func_context():
        assert chosen == [torch.device("cuda", 3)]
