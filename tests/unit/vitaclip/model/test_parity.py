"""The model against outputs, gradients and optimizer steps recorded from the authors' released
model.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from testing import released_reference as reference
from testing.paths import ROOT
from vitaclip.config import DataConfig, ModelConfig, PromptConfig, TextConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import Backbone, build_clip, weights_sha256
from vitaclip.model.released import join_released, split_released

Record = dict[str, Any]
PINNED = ROOT / "testing" / "records" / "released.json"
# Its true gradient is 0: softmax does not see a shift that all keys share.
NO_GRADIENT = "summary_attn_layer.k_proj.bias"


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


def model_of(released_record: Record, *, cls_proj: str = "released") -> VitaCLIP:
    config, keys = released_record["config"], released_record["state_dict_f16"]
    frozen, learned = split_released({name: tensor.float() for name, tensor in keys.items()})
    clip = build_clip(clip_config(config), frozen, source="record")
    model = VitaCLIP(
        Backbone(clip, weights_sha256(clip)),
        ModelConfig(
            prompts=PromptConfig(num_global=config["num_global"], cls_proj=cls_proj),
            text=TextConfig(
                num_context=config["text_num_prompts"],
                class_specific=keys["prompt_learner.ctx"].ndim == 3,
            ),
            data=DataConfig(num_frames=config["num_frames"]),
        ),
        released_record["classes"],
    )
    missing, unexpected = model.load_state_dict(learned, strict=False)
    assert not unexpected
    assert all(name.startswith("clip.") for name in missing)
    return model


def forward(model: VideoModel, released_record: Record) -> dict[str, Tensor]:
    video = released_record["x_f16"].to(model.logit_scale.dtype)
    video_features, text_features = model.encode_video(video), model.encode_classes()
    logits = model.logits(video_features, text_features)
    loss = F.cross_entropy(logits, released_record["labels"])
    return {
        "video_features": video_features,
        "text_features": text_features,
        "logits": logits,
        "loss": loss,
    }


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


def test_outputs_and_gradients_in_fp32(released_record: Record) -> None:
    model = model_of(released_record)
    outputs = forward(model, released_record)
    for name, output in outputs.items():
        torch.testing.assert_close(output, released_record[name], atol=1e-4, rtol=0, msg=name)
    outputs["loss"].backward()
    errors = relative_errors(released_gradients(model), released_record["grads"])
    assert max(errors.values()) < 1e-4, errors


def test_outputs_and_gradients_in_fp64(released_record: Record) -> None:
    model = model_of(released_record).double()
    outputs = forward(model, released_record)
    for name, output in outputs.items():
        torch.testing.assert_close(
            output, released_record["fp64"][name].double(), atol=1e-9, rtol=0, msg=name
        )
    outputs["loss"].backward()
    errors = relative_errors(released_gradients(model), released_record["fp64"]["grads"])
    assert max(errors.values()) < 1e-9, errors


def test_trained_cls_proj_changes_no_other_gradient(released_record: Record) -> None:
    model = model_of(released_record, cls_proj="paper")
    forward(model, released_record)["loss"].backward()
    found = released_gradients(model)
    assert max(relative_errors(found, released_record["grads"]).values()) < 1e-4
    grads = [p.grad for name, p in model.named_parameters() if name.endswith("cls_proj.weight")]
    assert len(grads) == len(model.vision_prompts.layers)
    assert all(grad is not None for grad in grads)


def test_the_reference_is_the_released_model(
    released_record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: tensor.float() for name, tensor in released_record["state_dict_f16"].items()}
    video, labels = released_record["x_f16"].float(), released_record["labels"]
    found = reference.outputs(weights, released_record["config"], video, labels)
    for name, output in found.items():
        torch.testing.assert_close(output, released_record[name], atol=1e-4, rtol=0, msg=name)


@pytest.mark.parametrize("variant", ["full", "UC"])
def test_the_projects_own_records_are_those_that_were_written_down(variant: str) -> None:
    pinned = json.loads(PINNED.read_text())[variant]
    record = reference.synthetic_record(class_specific=variant == "full")
    for name in ("logits", "loss", "video_features", "text_features"):
        torch.testing.assert_close(
            record["fp64"][name], torch.tensor(pinned[name], dtype=torch.float64), atol=1e-9, rtol=0
        )
    norms = {
        name: float(grad.norm())
        for name, grad in record["fp64"]["grads"].items()
        if NO_GRADIENT not in name
    }
    assert norms == pytest.approx(pinned["grad_norms"], rel=1e-8)
    assert record["train"]["losses"] == pytest.approx(pinned["losses"], abs=1e-4)


def test_three_optimizer_steps(released_record: Record) -> None:
    model, train = model_of(released_record), released_record["train"]
    optimizer = torch.optim.AdamW(
        model.trainable().values(), lr=train["lr"], weight_decay=train["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train["t_max"])
    for loss, lr in zip(train["losses"], train["lrs"], strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr, rel=1e-6)
        outputs = forward(model, released_record)
        assert float(outputs["loss"]) == pytest.approx(loss, abs=1e-4)
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(
        forward(model, released_record)["logits"], train["logits_after"], atol=1e-3, rtol=0
    )


def test_released_names_survive_the_round_trip(released_record: Record) -> None:
    released = {name: tensor.float() for name, tensor in released_record["state_dict_f16"].items()}
    frozen, learned = split_released(
        {f"module.{name}": tensor for name, tensor in released.items()}
    )
    joined = join_released(frozen, learned)
    assert released.keys() - joined.keys() == {
        "prompt_learner.token_prefix",
        "prompt_learner.token_suffix",
    }
    for name, tensor in joined.items():
        torch.testing.assert_close(tensor, released[name], atol=0, rtol=0, msg=name)
