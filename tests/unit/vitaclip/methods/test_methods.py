"""Every method's model: what training, evaluation and checkpoints ask of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.evaluation import supervised_classifier, zero_shot_classifier
from vitaclip.methods import MethodName
from vitaclip.methods.build import build_model, empty_model
from vitaclip.methods.video_model import VideoModel, shapes_of

CLASSES = ("walking", "running", "jumping")


def config_of(method: str, backbone: BackboneConfig) -> TrainConfig:
    values = {"method": method, "backbone": backbone.model_dump(), "data": {"num_frames": 2}}
    return TrainConfig.model_validate(values)


@torch.no_grad()
def logits_of(model: VideoModel) -> torch.Tensor:
    """Of two clips, with the classes as the model learned them and as plain names."""
    size = model.image_size
    video = torch.arange(2 * 3 * 2 * size * size).remainder(256).to(torch.uint8)
    video_BE = model.encode_video(video.view(2, 3, 2, size, size))
    classifiers = (supervised_classifier(model, CLASSES), zero_shot_classifier(model, CLASSES))
    return torch.stack([model.logits(video_BE, classifier.text_CE) for classifier in classifiers])


@pytest.mark.parametrize("method", get_args(MethodName))
def test_a_model_of_each_method_classifies_and_survives_a_checkpoint(
    method: str, small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    config = config_of(method, small_backbone)
    model = build_model(config, CLASSES)
    empty = empty_model(config, CLASSES)
    assert shapes_of(empty.learned_state()) == shapes_of(model.learned_state())
    assert model.trainable().keys() <= model.learned_state().keys()
    assert all(not parameter.requires_grad for parameter in model.clip.parameters())
    save_checkpoint(tmp_path, model, config, Progress())
    again, config_again = load_model(tmp_path)
    assert config_again.method == method
    assert again.backbone_sha256 == model.backbone_sha256
    wanted = logits_of(model)
    assert wanted.shape == (2, 2, len(CLASSES))
    assert torch.equal(logits_of(again), wanted)
    assert torch.equal(wanted[0], wanted[1]) == (not model.learns_texts)


def test_a_checkpoint_that_names_no_method_is_vita_clips(
    small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    """Version 0.1 knew no other."""
    config = config_of("vita_clip", small_backbone)
    save_checkpoint(tmp_path, build_model(config, CLASSES), config, Progress())
    content = json.loads((tmp_path / "checkpoint.json").read_text())
    del content["config"]["method"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(content))
    assert load_model(tmp_path)[1].method == "vita_clip"
