"""Blends with the frozen CLIP: what both ends are, and what lies between."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from testing.trained_models import moved, two_clips
from vitaclip.blending import FeatureBlend, WeightBlend, blend
from vitaclip.config import BackboneConfig, MethodName, TrainConfig
from vitaclip.evaluation import Classifier, Encode, zero_shot_classifier
from vitaclip.methods.build import build_model
from vitaclip.methods.video_model import VideoModel

CLASSES = ("walking", "running", "jumping")
METHODS = sorted({*get_args(MethodName)} - {"frozen_clip"})
BLENDS_WEIGHTS = {"full_finetune", "lora"}


def model_of(name: str, backbone: BackboneConfig) -> VideoModel:
    config = TrainConfig.model_validate(
        {"method": name, "backbone": backbone.model_dump(), "data": {"num_frames": 2}}
    )
    return build_model(config, CLASSES)


@pytest.fixture
def clip(small_backbone: BackboneConfig) -> VideoModel:
    return model_of("frozen_clip", small_backbone)


def learned(model: VideoModel) -> Classifier:
    with torch.no_grad():
        return Classifier(model, model.encode_classes())


def names(model: VideoModel) -> Classifier:
    return zero_shot_classifier(model, CLASSES)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_the_ends_are_the_frozen_clip_and_the_model(
    name: str, clip: VideoModel, small_backbone: BackboneConfig
) -> None:
    model = moved(model_of(name, small_backbone))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    encode = Encode(two_clips(model))
    logits = {alpha: blend(model, clip, alpha, names).logits(encode) for alpha in (0.0, 0.5, 1.0)}
    for alpha, wanted in ((0.0, names(clip)), (1.0, names(model))):
        torch.testing.assert_close(logits[alpha], wanted.logits(encode), atol=1e-4, rtol=1e-4)
    if name not in ("linear_probe", "text_prompts"):  # these read new names as the frozen CLIP does
        assert not torch.allclose(logits[0.5], logits[1.0])
        assert not torch.allclose(logits[0.5], logits[0.0])
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    whole = blend(model, clip, 1.0, learned).logits(encode)
    torch.testing.assert_close(whole, learned(model).logits(encode), atol=1e-4, rtol=1e-4)
    kind = WeightBlend if name in BLENDS_WEIGHTS else FeatureBlend
    assert isinstance(blend(model, clip, 0.5, names), kind)


@torch.no_grad()
def test_between_them_are_the_weights_between(
    clip: VideoModel, small_backbone: BackboneConfig
) -> None:
    model = moved(model_of("full_finetune", small_backbone))
    half = model_of("full_finetune", small_backbone)
    starts = dict(clip.named_parameters())
    for key, parameter in half.named_parameters():
        parameter.copy_((starts[key] + model.get_parameter(key)) / 2)
    encode = Encode(two_clips(model))
    found = blend(model, clip, 0.5, names).logits(encode)
    torch.testing.assert_close(found, names(half).logits(encode), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_lora_at_half_is_half_of_its_changes(
    clip: VideoModel, small_backbone: BackboneConfig
) -> None:
    model, half = (moved(model_of("lora", small_backbone)) for _ in range(2))
    for key, parameter in half.named_parameters():
        if key.endswith(".up"):
            parameter.mul_(0.5)
    half.logit_scale.copy_((half.logit_scale + clip.logit_scale) / 2)
    encode = Encode(two_clips(model))
    found = blend(model, clip, 0.5, names).logits(encode)
    torch.testing.assert_close(found, names(half).logits(encode), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blends_of_features_encode_a_clip_once(
    clip: VideoModel, small_backbone: BackboneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = moved(model_of("vita_clip", small_backbone))
    asked: list[VideoModel] = []
    encode_video = VideoModel.encode_video

    def counted(model: VideoModel, video: Tensor) -> Tensor:
        asked.append(model)
        return encode_video(model, video)

    monkeypatch.setattr(VideoModel, "encode_video", counted)
    encode = Encode(two_clips(model))
    for alpha in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        blend(model, clip, alpha, names).logits(encode)
    learned(model).logits(encode)
    assert sorted(map(id, asked)) == sorted(map(id, (clip, model)))
