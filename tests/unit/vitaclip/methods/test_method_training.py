"""Every method by one contract: it learns, goes on bit for bit, is scored and predicts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.config import MethodName, TrainConfig
from vitaclip.evaluation import evaluate
from vitaclip.prediction import predict
from vitaclip.train import FitResult, TrainingInterruptedError, fit

LEARNING = sorted({*get_args(MethodName)} - {"frozen_clip"})


def config_of(name: str, small_training: dict[str, Any]) -> TrainConfig:
    # One layer, which starts from the names, needs larger steps to get anywhere in two epochs.
    lr = 5e-2 if name == "linear_probe" else 1e-3
    own = {"optimizer": {"lr": lr, "clip_lr_scale": 0.1}, "epochs": 2}
    return TrainConfig.model_validate(small_training | own | {"method": {"name": name}})


def train(config: TrainConfig, folder: Path, **options: Any) -> FitResult:
    """Keeps a checkpoint of each epoch in ``folder``."""
    return fit(config, on_epoch_end=lambda end: end.save(folder / str(end.epoch)), **options)


@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_and_goes_on_bit_for_bit(
    name: str, small_training: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of(name, small_training)
    whole = train(config, tmp_path / "whole")
    losses = [epoch["train/loss"] for epoch in whole.history]
    assert losses[1] < losses[0]

    asked = iter([False, False, False, False, True])  # in the second epoch, after its second step
    with pytest.raises(TrainingInterruptedError) as stop:
        train(config, tmp_path / "stopped", should_stop=lambda: next(asked))
    stop.value.save(tmp_path / "stopped/now")
    train(config, tmp_path / "resumed", resume_from=tmp_path / "stopped/now")
    wanted, found = (read_info(tmp_path / run / "2") for run in ("whole", "resumed"))
    assert found.tensors == wanted.tensors  # they are named by their content


@pytest.mark.parametrize("name", LEARNING)
def test_it_is_scored_and_predicts(
    name: str, small_training: dict[str, Any], motion_dataset: str, tmp_path: Path
) -> None:
    config = config_of(name, small_training).model_copy(update={"epochs": 1})
    history = train(config, tmp_path).history
    score = evaluate(tmp_path / "1", dataset=motion_dataset, split="val")
    assert score.top1 == history[0]["val/top1"]
    zero_shot = evaluate(tmp_path / "1", dataset=motion_dataset, split="val", mode="zero_shot")
    assert zero_shot.num_clips == score.num_clips
    video = next(Path(os.environ["VITACLIP_DATA_MOTIONS"]).rglob("*.mp4"))
    for names in (None, ["falling leaves", "moving left", "a dog"]):
        [prediction] = predict(tmp_path / "1", [video], names)
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["full_finetune", "x_clip"])
def test_clips_own_weights_have_a_learning_rate_of_their_own(
    name: str, small_training: dict[str, Any], tmp_path: Path
) -> None:
    """With next to none, CLIP stays as it is, and only what was added moves."""
    optimizer = {"lr": 1e-3, "clip_lr_scale": 1e-12}
    config = config_of(name, small_training | {"optimizer": optimizer})
    config = config.model_copy(
        update={"epochs": 1, "optimizer": config.optimizer.model_copy(update=optimizer)}
    )
    train(config, tmp_path)
    trained, _ = load_model(tmp_path / "1")
    frozen = TrainConfig.model_validate(small_training | {"method": "frozen_clip", "epochs": 0})
    clip = fit(frozen).model.clip.state_dict()
    for key, weights in trained.clip.state_dict().items():
        torch.testing.assert_close(weights, clip[key], atol=1e-8, rtol=1e-8)
