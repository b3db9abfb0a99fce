"""What keeps a training near the frozen CLIP: each does what it says, and goes on bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from testing.trained_models import moved, two_clips
from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError
from vitaclip.methods.build import build_model, check_model
from vitaclip.methods.video_model import VideoModel, is_clips_own
from vitaclip.model.backbone import load_backbone
from vitaclip.optimizer import accumulate_gradients
from vitaclip.regularizers.distillation import Distillation
from vitaclip.regularizers.interpolation import Interpolation
from vitaclip.train import FitResult, TrainingInterruptedError, fit

CLASSES = ("walking", "running", "jumping")
LABELS = torch.tensor([0, 2])


def config_of(
    small_training: dict[str, Any], method: str = "full_finetune", epochs: int = 2, **on: float
) -> TrainConfig:
    own = {"optimizer": {"lr": 1e-3}, "epochs": epochs, "regularizers": on}
    return TrainConfig.model_validate(small_training | own | {"method": {"name": method}})


def gradients(model: VideoModel) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def train(config: TrainConfig, folder: Path, **options: Any) -> FitResult:
    return fit(config, on_epoch_end=lambda end: end.save(folder / str(end.epoch)), **options)


@pytest.mark.parametrize("method", ["full_finetune", "vita_clip", "x_clip"])
def test_distillation_pulls_features_to_the_frozen_clips(
    method: str, small_training: dict[str, Any]
) -> None:
    config = config_of(small_training, method, distillation=2.0)
    frozen = VideoModel(load_backbone(config.backbone, seed=config.seed), config, CLASSES)
    model = moved(build_model(config, CLASSES))
    penalty, video = Distillation(model, config), two_clips(model)
    features, text = model.encode_video(video), model.encode_classes()
    assert model.residual is not None
    with torch.no_grad():
        pairs = [(model.residual.video(model.video_features(features)), frozen.encode_video(video))]
        if model.learns_texts:
            wanted = frozen.encode_names(model.trained_texts())
            pairs.append((model.residual.text(text), wanted))
    distances = [1 - F.cosine_similarity(ours, theirs, dim=-1).mean() for ours, theirs in pairs]
    loss = penalty(video, features, text)
    torch.testing.assert_close(loss, 2 * torch.stack(distances).sum())
    loss.backward()
    assert any(grad.abs().max() > 0 for grad in gradients(model).values())


def test_distillation_of_the_frozen_clip_itself_costs_nothing(
    small_training: dict[str, Any],
) -> None:
    config = config_of(small_training, distillation=1.0)
    model = build_model(config, CLASSES)
    video = two_clips(model)
    loss = Distillation(model, config)(video, model.encode_video(video), model.encode_classes())
    assert float(loss) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_have_the_same_penalty(size: int, small_training: dict[str, Any]) -> None:
    config = config_of(small_training, distillation=2.0)
    model = moved(build_model(config, CLASSES))
    penalty, video = Distillation(model, config), two_clips(model)
    accumulate_gradients(model, video, LABELS, micro_batch_size=size, penalty=penalty)
    found = gradients(model)
    video_features, text = model.encode_video(video), model.encode_classes()
    loss = F.cross_entropy(model.logits(video_features, text), LABELS)
    (loss + penalty(video, video_features, text)).backward()
    for name, wanted in gradients(model).items():
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-4, msg=name)


def test_interpolation_adds_the_gradient_at_a_blend(small_training: dict[str, Any]) -> None:
    config = config_of(small_training, interpolation=0.5, interpolation_reach=0.6)
    model = build_model(config, CLASSES)
    start = {name: p.detach().clone() for name, p in model.trainable().items()}
    interpolation = Interpolation(model, config)
    moved(model)
    trained = {name: p.detach().clone() for name, p in model.trainable().items()}
    shares = []
    for step in range(20):
        with interpolation.blended(step):
            blend = {name: p.detach().clone() for name, p in model.trainable().items()}
        name = "clip.visual.proj"
        share = (blend[name] - trained[name]) / (start[name] - trained[name])
        shares.append(float(share.mean()))
        torch.testing.assert_close(share, torch.full_like(share, shares[-1]), atol=1e-2, rtol=0)
        assert torch.equal(blend["logit_scale"], trained["logit_scale"])
        assert all(torch.equal(p, trained[name]) for name, p in model.trainable().items())
    assert 0 <= min(shares) < 0.2
    assert 0.4 < max(shares) <= 0.6 + 1e-3
    video = two_clips(model)
    with interpolation.blended(3):
        accumulate_gradients(model, video, LABELS, micro_batch_size=None, weight=0.5)
    at_blend = gradients(model)
    with interpolation.blended(3):
        accumulate_gradients(model, video, LABELS, micro_batch_size=None)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(at_blend[name], 0.5 * gradient)


def test_interpolation_needs_weights_of_clips_own(small_training: dict[str, Any]) -> None:
    config = config_of(small_training, "vita_clip", interpolation=0.5)
    with pytest.raises(
        InputError, match=r"regularizers.interpolation: found 0.5, vita_clip trains"
    ):
        check_model(config, CLASSES)


def test_the_average_is_kept_and_the_training_goes_on_from_its_own_weights(
    small_training: dict[str, Any], tmp_path: Path
) -> None:
    plain = config_of(small_training, epochs=4)
    averaged = config_of(small_training, epochs=4, average_from=0.5)
    train(plain, tmp_path / "plain")
    result = train(averaged, tmp_path / "averaged")
    weights = [load_model(tmp_path / "plain" / str(n))[0].trainable() for n in (1, 2, 3, 4)]
    for kept, epochs in ((1, [0]), (2, [1]), (3, [1, 2]), (4, [1, 2, 3])):
        found = load_model(tmp_path / "averaged" / str(kept))[0].trainable()
        for name, parameter in found.items():
            wanted = torch.stack([weights[epoch][name].detach() for epoch in epochs]).mean(dim=0)
            torch.testing.assert_close(parameter.detach(), wanted, atol=1e-6, rtol=1e-5)
    last = load_model(tmp_path / "averaged/4")[0].trainable()
    assert all(torch.equal(p, last[name]) for name, p in result.model.trainable().items())
    assert result.history[3]["train/loss"] == fit(plain).history[3]["train/loss"]


@pytest.mark.parametrize(
    ("method", "on"),
    [
        ("full_finetune", {"interpolation": 0.5, "distillation": 2.0, "average_from": 0.3}),
        ("vita_clip", {"distillation": 1.0}),
        ("lora", {"average_from": 0.0}),
    ],
)
def test_with_regularizers_a_training_goes_on_bit_for_bit(
    method: str, on: dict[str, float], small_training: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of(small_training, method, epochs=3, **on)
    train(config, tmp_path / "whole")
    asked = iter([False] * 7 + [True])  # in the third epoch, after its second step
    with pytest.raises(TrainingInterruptedError) as stop:
        train(config, tmp_path / "stopped", should_stop=lambda: next(asked))
    stop.value.save(tmp_path / "stopped/now")
    train(config, tmp_path / "resumed", resume_from=tmp_path / "stopped/now")
    wanted, found = (read_info(tmp_path / run / "3") for run in ("whole", "resumed"))
    assert found.tensors == wanted.tensors
    assert any(map(is_clips_own, load_model(tmp_path / "resumed/3")[0].trainable())) == (
        method == "full_finetune"
    )
