"""Every method by one contract: what training, evaluation and checkpoints ask of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F

from testing.trained_models import moved
from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import BackboneConfig, MethodName, TrainConfig
from vitaclip.errors import InputError
from vitaclip.evaluation import supervised_classifier, zero_shot_classifier
from vitaclip.methods.build import build_model, check_model, empty_model
from vitaclip.methods.video_model import FrozenWeights, VideoModel, is_clips_own, shapes_of
from vitaclip.tuned_backbone import export_backbone

CLASSES = ("walking", "running", "jumping")
NUM_FRAMES = 2
# A setting of each kind that a method has.
VARIANTS: tuple[dict[str, Any], ...] = (
    *({"name": name} for name in get_args(MethodName)),
    {"name": "linear_probe", "linear_probe": {"start": "random"}},
    {"name": "full_finetune", "full_finetune": {"tower": "image"}},
    {"name": "full_finetune", "full_finetune": {"tower": "text"}},
    {"name": "x_clip", "x_clip": {"num_integration_layers": 2, "num_prompt_layers": 1}},
    {"name": "st_adapter", "st_adapter": {"place": "mlp", "width": 8}},
    {"name": "st_adapter", "st_adapter": {"place": "attention", "kernel_frames": 1}},
    {"name": "aim", "aim": {"num_temporal": 2}},
    {"name": "lora", "lora": {"tower": "both", "weights": "attention"}},
    {"name": "lora", "lora": {"tower": "text", "weights": "mlp", "rank": 2}},
)
every_variant = pytest.mark.parametrize(
    "method", VARIANTS, ids=lambda method: json.dumps([*method.values()])
)


def config_of(method: dict[str, Any] | str, backbone: BackboneConfig) -> TrainConfig:
    values = {
        "method": method,
        "backbone": backbone.model_dump(),
        "data": {"num_frames": NUM_FRAMES},
    }
    return TrainConfig.model_validate(values)


def video_of(model: VideoModel, num_frames: int = NUM_FRAMES) -> torch.Tensor:
    size = model.image_size
    pixels = torch.arange(2 * 3 * num_frames * size * size).remainder(251).to(torch.uint8)
    return pixels.view(2, 3, num_frames, size, size)


@torch.no_grad()
def logits_of(model: VideoModel) -> torch.Tensor:
    """Of two clips, with the classes as the model learned them and as plain names."""
    video = model.encode_video(video_of(model))
    classifiers = (supervised_classifier(model, CLASSES), zero_shot_classifier(model, CLASSES))
    return torch.stack([model.logits(video, classifier.text_CE) for classifier in classifiers])


@every_variant
def test_a_model_classifies_and_survives_a_checkpoint(
    method: dict[str, Any], small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    config = config_of(method, small_backbone)
    model = moved(build_model(config, CLASSES))
    empty = empty_model(config, CLASSES)
    assert shapes_of(empty.learned_state()) == shapes_of(model.learned_state())
    assert model.trainable().keys() <= model.learned_state().keys()
    save_checkpoint(tmp_path, model, config, Progress())
    again, config_again = load_model(tmp_path)
    assert config_again.method == config.method
    assert again.backbone_sha256 == model.backbone_sha256
    wanted = logits_of(model)
    assert wanted.shape == (2, 2, len(CLASSES))
    assert torch.equal(logits_of(again), wanted)
    own_texts = ("vita_clip", "text_prompts", "linear_probe", "full_finetune")
    assert torch.equal(wanted[0], wanted[1]) == (config.method.name not in own_texts)


@every_variant
def test_what_is_trainable_moves_the_loss_and_nothing_else_does(
    method: dict[str, Any], small_backbone: BackboneConfig
) -> None:
    config = config_of(method, small_backbone)
    model = moved(build_model(config, CLASSES))
    trainable = model.trainable()
    assert list(map(is_clips_own, trainable)) == sorted(map(is_clips_own, trainable))
    if not trainable:
        assert config.method.name == "frozen_clip"
        return
    labels = torch.tensor([0, 2])
    logits = model.logits(model.encode_video(video_of(model)), model.encode_classes())
    F.cross_entropy(logits, labels).backward()
    assert all(parameter.grad is not None for parameter in trainable.values())
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    "name", sorted({*get_args(MethodName)} - {"vita_clip", "x_clip", "st_adapter"})
)
def test_most_methods_start_from_the_frozen_clip(name: str, small_backbone: BackboneConfig) -> None:
    """Vita-CLIP draws its prompts, X-CLIP its integration transformer; ST-Adapter averages frames
    before the last LayerNorm.
    """
    clip = build_model(config_of("frozen_clip", small_backbone), CLASSES)
    model = build_model(config_of(name, small_backbone), CLASSES)
    torch.testing.assert_close(logits_of(model)[1], logits_of(clip)[1], atol=1e-5, rtol=1e-5)


# Vita-CLIP's time embedding stretches over the whole clip; ST-Adapter averages before a LayerNorm.
@pytest.mark.parametrize("name", sorted({*get_args(MethodName)} - {"vita_clip", "st_adapter"}))
def test_longer_clips_are_read_in_segments(name: str, small_backbone: BackboneConfig) -> None:
    """The features of a long clip are the mean of its segments'."""
    model = moved(build_model(config_of(name, small_backbone), CLASSES))
    video = video_of(model, 2 * NUM_FRAMES)
    with torch.no_grad():
        whole = model.encode_video(video)
        parts = [model.encode_video(part) for part in video.split(NUM_FRAMES, dim=2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean(dim=0), atol=1e-5, rtol=1e-4)


@every_variant
def test_frozen_weights_are_shared_and_trained_ones_never(
    method: dict[str, Any], small_backbone: BackboneConfig
) -> None:
    config = config_of(method, small_backbone)
    pool: FrozenWeights = {}
    models = [moved(build_model(config, CLASSES)), build_model(config, CLASSES)]
    models.append(build_model(config_of("frozen_clip", small_backbone), CLASSES))
    before = [logits_of(model) for model in models]
    for model in models:
        model.share_frozen(pool)
    weights = [{id(p) for p in model.clip.parameters() if not p.requires_grad} for model in models]
    assert weights[0] == weights[1]
    assert weights[0] <= weights[2]
    for model, wanted in zip(models, before, strict=True):
        assert torch.equal(logits_of(model), wanted)


def test_a_checkpoint_that_names_no_method_is_vita_clips(
    small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    """Version 0.1 knew no other, and what came after it wrote a name alone."""
    config = config_of("vita_clip", small_backbone)
    save_checkpoint(tmp_path, build_model(config, CLASSES), config, Progress())
    content = json.loads((tmp_path / "checkpoint.json").read_text())
    content["config"]["method"] = "vita_clip"
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    assert load_model(tmp_path)[1].method.name == "vita_clip"
    del content["config"]["method"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    assert load_model(tmp_path)[1].method.name == "vita_clip"


@pytest.mark.parametrize("name", ["full_finetune", "lora"])
def test_a_tuned_clip_carries_prompts(
    name: str, small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    """ViFi-CLIP's bridge and prompt: the tuned weights are the backbone of another training."""
    method = {"name": name, "lora": {"tower": "both"}}
    config = config_of(method, small_backbone)
    tuned = moved(build_model(config, CLASSES))
    save_checkpoint(tmp_path / "tuned", tuned, config, Progress())
    export_backbone(tmp_path / "tuned", tmp_path / "tuned.safetensors")
    backbone = small_backbone.model_copy(update={"pretrained": str(tmp_path / "tuned.safetensors")})
    again = build_model(config_of("frozen_clip", backbone), CLASSES)
    torch.testing.assert_close(logits_of(again)[1], logits_of(tuned)[1], atol=1e-5, rtol=1e-5)
    prompted = build_model(config_of("vita_clip", backbone), CLASSES)
    assert prompted.backbone_sha256 == again.backbone_sha256 != tuned.backbone_sha256
    assert all(not parameter.requires_grad for parameter in prompted.clip.parameters())


def test_only_a_clip_of_other_weights_is_exported(
    small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    config = config_of("x_clip", small_backbone)
    save_checkpoint(tmp_path, build_model(config, CLASSES), config, Progress())
    with pytest.raises(InputError, match="trained by x_clip, allowed are full_finetune and lora"):
        export_backbone(tmp_path, tmp_path / "weights.safetensors")


def test_text_prompts_need_a_context(small_backbone: BackboneConfig) -> None:
    config = config_of("text_prompts", small_backbone)
    config = config.model_copy(update={"text": config.text.model_copy(update={"num_context": 0})})
    with pytest.raises(InputError, match="text.num_context: found 0, text_prompts needs 1 or more"):
        check_model(config, CLASSES)
