"""What workers exchange, in two real processes, and what fp32 means on an accelerator."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, distributed, nn

from testing.pretended_device import DEVICE, pretended_device
from testing.sweeps import eventually
from vitaclip import gradient_exchange, train
from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.config import TrainConfig
from vitaclip.distributed import average_over_workers, default_device
from vitaclip.errors import WorkerLostError
from vitaclip.gradient_exchange import GradientExchange
from vitaclip.methods.build import build_model
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
    _exchange_gradients(rank, folder)
    _hang(rank, folder)
    distributed.destroy_process_group()


def _train_with_an_infinite_gradient(rank: int, folder: Path, config: TrainConfig) -> None:
    steps = 0

    def accumulate(model: Any, *arguments: Any, **options: Any) -> Tensor:
        nonlocal steps
        hook = None
        if rank == 1 and steps == 1:
            parameter = next(iter(model.trainable().values()))
            hook = parameter.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
        loss = accumulate_gradients(model, *arguments, **options)
        if hook is not None:
            hook.remove()
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


def _exchange_gradients(rank: int, folder: Path) -> None:
    """Four steps of a small model whose parameters are a bucket each. For want of memory one worker
    computes the third step again.
    """
    torch.manual_seed(0)
    first, *others = (nn.Linear(8, 8) for _ in range(4))
    layers = nn.Sequential(first, *others)
    with patch.object(gradient_exchange, "_BUCKET_BYTES", 1):
        exchange = GradientExchange(layers.parameters())
    early: list[int] = []  # how many buckets are sent when the last gradient comes
    first.weight.register_hook(lambda _: early.append(len(exchange._sent)))
    found: list[dict[str, Any]] = []
    for step in range(4):
        layers(torch.full((1, 8), 0.5)).sum().backward()  # a micro-batch that is not the last
        early.clear()
        for _ in range(2 if rank == 0 and step == 2 else 1):
            exchange.expect()
            layers(torch.full((1, 8), rank + step + 1.0)).sum().backward()
        own = gradients_of(layers)
        exchange.finish()
        found.append({"early": early[0], "own": own, "mean": gradients_of(layers)})
        layers.zero_grad()
    torch.save(found, folder / f"exchange-{rank}.pt")


def gradients_of(layers: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in layers.parameters() if p.grad is not None]


def test_gradients_are_sent_while_others_are_computed(two_workers: Path) -> None:
    ours, theirs = (torch.load(two_workers / f"exchange-{rank}.pt") for rank in range(2))
    for step, (here, there) in enumerate(zip(ours, theirs, strict=True)):
        # The first step learns the order. From then on only the last gradient is not sent yet.
        assert here["early"] == there["early"] == (0 if step == 0 else 7)
        assert all(map(torch.equal, here["mean"], there["mean"]))
        if step == 2:  # what was sent is not what one worker found in the end
            continue
        for mean, own, other in zip(here["mean"], here["own"], there["own"], strict=True):
            assert torch.equal(mean, (own + other) / 2)


def test_gradients_come_layer_by_layer(small_training: dict[str, Any]) -> None:
    """Else nothing could be sent before the backward pass ends."""
    model = build_model(TrainConfig.model_validate(small_training), ["run", "swim"])
    arrivals: list[str] = []
    for name, parameter in model.trainable().items():
        parameter.register_post_accumulate_grad_hook(lambda _, n=name: arrivals.append(n))
    size = model.image_size
    video = torch.randint(256, (2, 3, model.num_frames, size, size), dtype=torch.uint8)
    accumulate_gradients(model, video, torch.tensor([0, 1]), micro_batch_size=None)
    layers = [int(name.split(".")[2]) for name in arrivals if ".layers." in name]
    assert len(set(layers)) > 1
    assert layers == sorted(layers, reverse=True)


def test_a_gradient_too_many_is_an_error() -> None:
    layer = nn.Linear(2, 2)
    with patch.object(gradient_exchange, "rank_and_world_size", return_value=(0, 2)):
        exchange = GradientExchange(layer.parameters())
    exchange._expected = Counter({0: 1})
    exchange.expect()
    with (
        patch.object(gradient_exchange, "Average"),
        pytest.raises(RuntimeError, match="more gradients than the first one did"),
    ):
        layer(torch.ones(1, 2)).sum().backward()


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
