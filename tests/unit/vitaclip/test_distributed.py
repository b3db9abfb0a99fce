"""What workers exchange, in two real processes, and what fp32 means on an accelerator."""

from __future__ import annotations

import json
import multiprocessing
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, distributed

from testing.pretended_device import DEVICE, pretended_device
from testing.sweeps import eventually
from vitaclip import train
from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.config import TrainConfig
from vitaclip.distributed import average_over_workers, default_device
from vitaclip.errors import WorkerLostError
from vitaclip.optimizer import accumulate_gradients
from vitaclip.train import fit


@pytest.fixture(scope="module")
def two_workers(small_training: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which two workers wrote what became of them."""
    backbone = {"name": "quickstart-tiny", "pretrained": "quickstart"}
    changes = {"backbone": backbone, "precision": "fp16", "epochs": 1}
    config = TrainConfig.model_validate(small_training | changes)
    folder = tmp_path_factory.mktemp("workers")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(rank, folder, config)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    return folder


def _work(rank: int, folder: Path, config: TrainConfig) -> None:
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    _train_with_an_infinite_gradient(rank, folder, config)
    _hang(rank, folder)
    distributed.destroy_process_group()


def _train_with_an_infinite_gradient(rank: int, folder: Path, config: TrainConfig) -> None:
    steps = 0

    def accumulate(model: Any, *arguments: Any, **options: Any) -> Tensor:
        nonlocal steps
        loss = accumulate_gradients(model, *arguments, **options)
        if rank == 1 and steps == 1:
            next(p.grad for p in model.trainable().values() if p.grad is not None).fill_(torch.inf)
        steps += 1
        return loss

    with patch.object(train, "accumulate_gradients", accumulate):
        fit(config, on_epoch_end=lambda end: end.save(folder / str(rank)))


def test_an_infinite_gradient_of_one_worker_skips_the_step_of_all(two_workers: Path) -> None:
    for rank in range(2):
        scaler = read_info(two_workers / str(rank)).progress.grad_scaler
        assert scaler is not None
        # Halved once, as one of the epoch's three steps was infinite.
        assert scaler["scale"] == 2.0**15
        assert scaler["_growth_tracker"] == 1
    ours, theirs = (load_model(two_workers / str(rank))[0].trainable() for rank in range(2))
    for name, parameter in ours.items():
        assert parameter.isfinite().all()
        assert torch.equal(parameter, theirs[name])


def _hang(rank: int, folder: Path) -> None:
    if rank == 1:
        eventually((folder / "error").exists)
        return
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=0.2), distributed.group.WORLD)
    with pytest.raises(WorkerLostError) as lost:
        average_over_workers([torch.ones(1)])
    (folder / "error.new").write_text(json.dumps(str(lost.value)))
    (folder / "error.new").rename(folder / "error")


def test_a_worker_that_hangs_fails_the_others(two_workers: Path) -> None:
    error = json.loads((two_workers / "error").read_text())
    assert error.startswith("worker 0 of 2 waited for the others: one of them hangs or is gone")
    assert "imed out" in error


def test_fp32_is_ieee_fp32_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pretended_device():
        assert default_device() == DEVICE
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
