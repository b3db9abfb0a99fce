"""The model against outputs, gradients and optimiser steps recorded from the authors' released model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitaclip.config import PromptConfig, TextConfig
from vitaclip.model.backbone import Backbone, build_clip, weights_sha256
from vitaclip.model.released import join_released, split_released
from vitaclip.model.vita_clip import VitaCLIP

Record = dict[str, Any]
# Its true gradient is 0: softmax does not see a shift that all keys share.
NO_GRADIENT = "summary_attn_layer.k_proj.bias"


@pytest.fixture(params=["tiny_full", "tiny_UC"])
def record(request: pytest.FixtureRequest, parity_folder: Path) -> Record:
    return dict(torch.load(parity_folder / f"{request.param}.pt", weights_only=True))


def clip_config(config: dict[str, int]) -> dict[str, Any]:
    return {
        "embed_dim": config["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": config["size"],
            "patch_size": config["patch"],
            "width": config["feature_dim"],
            "layers": config["num_layers"],
            "head_width": config["feature_dim"] // config["num_heads"],
        },
        "text_cfg": {
            "width": config["text_width"],
            "heads": config["text_heads"],
            "layers": config["text_layers"],
        },
    }


def model_of(record: Record, *, cls_proj: str = "released") -> VitaCLIP:
    config, keys = record["config"], record["state_dict_f16"]
    frozen, learned = split_released({name: tensor.float() for name, tensor in keys.items()})
    clip = build_clip(clip_config(config), frozen, source="record")
    model = VitaCLIP(
        Backbone(clip, weights_sha256(clip)),
        PromptConfig(num_global=config["num_global"], cls_proj=cls_proj),
        TextConfig(
            num_context=config["text_num_prompts"], class_specific=keys["prompt_learner.ctx"].ndim == 3
        ),
        record["classes"],
        num_frames=config["num_frames"],
    )
    missing, unexpected = model.load_state_dict(learned, strict=False)
    assert not unexpected
    assert all(name.startswith("clip.") for name in missing)
    return model


def forward(model: VitaCLIP, record: Record) -> dict[str, Tensor]:
    video = record["x_f16"].to(model.logit_scale.dtype)
    video_features, text_features = model.encode_video(video), model.encode_classes()
    logits = model.logits(video_features, text_features)
    loss = F.cross_entropy(logits, record["labels"])
    return {"video_features": video_features, "text_features": text_features, "logits": logits, "loss": loss}


def released_gradients(model: VitaCLIP) -> dict[str, Tensor]:
    learned = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    frozen = model.clip.state_dict()
    return {k: v for k, v in join_released(frozen, learned).items() if not k.startswith("textual.")}


def relative_errors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    assert wanted
    return {
        name: float((found[name].double() - grad.double()).norm() / grad.double().norm())
        for name, grad in wanted.items()
        if NO_GRADIENT not in name
    }


def test_outputs_and_gradients_in_fp32(record: Record) -> None:
    model = model_of(record)
    outputs = forward(model, record)
    for name, output in outputs.items():
        torch.testing.assert_close(output, record[name], atol=1e-4, rtol=0, msg=name)
    outputs["loss"].backward()
    errors = relative_errors(released_gradients(model), record["grads"])
    assert max(errors.values()) < 1e-4, errors


def test_outputs_and_gradients_in_fp64(record: Record) -> None:
    model = model_of(record).double()
    outputs = forward(model, record)
    for name, output in outputs.items():
        torch.testing.assert_close(output, record["fp64"][name].double(), atol=1e-9, rtol=0, msg=name)
    outputs["loss"].backward()
    errors = relative_errors(released_gradients(model), record["fp64"]["grads"])
    assert max(errors.values()) < 1e-9, errors


def test_trained_cls_proj_changes_no_other_gradient(record: Record) -> None:
    model = model_of(record, cls_proj="paper")
    forward(model, record)["loss"].backward()
    found = released_gradients(model)
    assert max(relative_errors(found, record["grads"]).values()) < 1e-4
    assert all(layer.cls_proj.weight.grad is not None for layer in model.vision_prompts.layers)


def test_three_optimiser_steps(record: Record) -> None:
    model, train = model_of(record), record["train"]
    optimizer = torch.optim.AdamW(
        model.trainable().values(), lr=train["lr"], weight_decay=train["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train["t_max"])
    for loss, lr in zip(train["losses"], train["lrs"], strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-6)
        outputs = forward(model, record)
        assert float(outputs["loss"]) == pytest.approx(loss, abs=1e-4)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(forward(model, record)["logits"], train["logits_after"], atol=1e-3, rtol=0)


def test_released_names_survive_the_round_trip(record: Record) -> None:
    released = {name: tensor.float() for name, tensor in record["state_dict_f16"].items()}
    frozen, learned = split_released({f"module.{name}": tensor for name, tensor in released.items()})
    joined = join_released(frozen, learned)
    assert released.keys() - joined.keys() == {"prompt_learner.token_prefix", "prompt_learner.token_suffix"}
    for name, tensor in joined.items():
        torch.testing.assert_close(tensor, released[name], atol=0, rtol=0, msg=name)
