"""What workers exchange, in two real processes, and what fp32 means on an accelerator."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, distributed, nn

from testing.motions import damaged_copy
from testing.pretended_device import DEVICE, pretended_device
from testing.sweeps import eventually
from vitaclip import gradient_exchange, train
from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.config import TrainConfig
from vitaclip.distributed import average_over_workers, default_device
from vitaclip.errors import DataError, WorkerLostError
from vitaclip.gradient_exchange import GradientExchange
from vitaclip.methods.build import build_model
from vitaclip.optimizer import accumulate_gradients
from vitaclip.train import TrainingInterruptedError, fit


@pytest.fixture(scope="module")
def damaged_videos(motion_dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset's videos, of which some are broken."""
    folder = tmp_path_factory.mktemp("damaged") / "data"
    damaged_copy(motion_dataset, folder)
    return folder


@pytest.fixture(scope="module")
def quickstart_training(small_training: dict[str, Any]) -> dict[str, Any]:
    backbone = {"name": "quickstart-tiny", "pretrained": "quickstart"}
    return small_training | {"backbone": backbone}


@pytest.fixture(scope="module")
def damaged_training(quickstart_training: dict[str, Any]) -> TrainConfig:
    """21 steps on videos of which no more than an eighth may be broken."""
    data = {"augment": {"rand_augment": "m3-n1"}, "max_broken": 1 / 8}
    return TrainConfig.model_validate(
        quickstart_training
        | {
            "prompts": {"num_global": 2},
            "text": {"num_context": 2},
            "data": quickstart_training["data"] | data,
            "epochs": 7,
            "optimizer": {"lr": 1e-3},
        }
    )


@pytest.fixture(scope="module")
def two_workers(
    quickstart_training: dict[str, Any],
    damaged_training: TrainConfig,
    damaged_videos: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder into which two workers wrote what became of them; to start them takes seconds."""
    config = TrainConfig.model_validate(quickstart_training | {"precision": "fp16", "epochs": 1})
    folder = tmp_path_factory.mktemp("workers")
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(rank, folder, config, damaged_training, damaged_videos))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    return folder


def _work(
    rank: int,
    folder: Path,
    config: TrainConfig,
    damaged_training: TrainConfig,
    damaged_videos: Path,
) -> None:
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    _train_with_an_infinite_gradient(rank, folder, config)
    with patch.dict(os.environ, VITACLIP_DATA_MOTIONS=str(damaged_videos)):
        _train_on_damaged_videos(rank, folder, damaged_training)
    _exchange_gradients(rank, folder)
    _train_with_little_memory(rank, folder, config.model_copy(update={"precision": "fp32"}))
    _hang(rank, folder)
    distributed.destroy_process_group()


def _train_on_damaged_videos(rank: int, folder: Path, config: TrainConfig) -> None:
    too_few = config.data.model_copy(update={"max_broken": 2.9 / 24})
    with pytest.raises(DataError, match=r"3 of 24 videos are broken, more than the 12\.1%"):
        fit(config.model_copy(update={"data": too_few}))
    try:
        fit(config, should_stop=lambda: rank == 1)
    except TrainingInterruptedError as stop:  # on both, though only one was told to
        if rank == 0:
            stop.save(folder / "stop")
    distributed.barrier()
    history = fit(config, resume_from=folder / "stop").history
    if rank == 0:
        (folder / "history.json").write_text(json.dumps(history))


def test_two_workers_equal_one(
    two_workers: Path,
    damaged_training: TrainConfig,
    damaged_videos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(damaged_videos))
    one = fit(damaged_training).history
    two = json.loads((two_workers / "history.json").read_text())
    for ours, theirs in zip(two, one, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-6)
        assert ours["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-6)
        for key, number in (("data/broken", 3), ("val/broken", 1)):
            assert ours[key] == theirs[key] == number


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
        early.clear()
        for _ in range(2 if rank == 0 and step == 2 else 1):
            layers.zero_grad()
            exchange.begin_anew()
            # A micro-batch that is not the last.
            layers(torch.full((1, 8), 0.5)).sum().backward()
            exchange.expect()
            layers(torch.full((1, 8), rank + step + 1.0)).sum().backward()
        own = gradients_of(layers)
        exchange.finish()
        found.append({"early": early[1], "own": own, "mean": gradients_of(layers)})
        layers.zero_grad()
    torch.save(found, folder / f"exchange-{rank}.pt")


def _train_with_little_memory(rank: int, folder: Path, config: TrainConfig) -> None:
    """Memory runs out on one worker at the very end of its second step's gradients."""
    num_calls = 0

    def accumulate(*arguments: Any, **options: Any) -> Tensor:
        nonlocal num_calls
        num_calls += 1
        loss = accumulate_gradients(*arguments, **options)
        if rank == 0 and num_calls == 2:
            raise torch.OutOfMemoryError
        return loss

    with patch.object(train, "accumulate_gradients", accumulate):
        fit(config, on_epoch_end=lambda end: end.save(folder / f"memory-{rank}"))


def test_workers_stay_equal_when_memory_runs_out_on_one(two_workers: Path) -> None:
    folders = [two_workers / f"memory-{rank}" for rank in range(2)]
    assert [read_info(folder).progress.micro_batch_size for folder in folders] == [2, None]
    ours, theirs = (load_model(folder)[0].trainable() for folder in folders)
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in ours.items())


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
