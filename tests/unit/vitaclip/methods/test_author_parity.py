"""Methods against their authors' own code, by figures that it gave once
(:mod:`testing.author_records`).

Tolerance: 1e-5 in features and logits, both in full precision.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from testing.author_records import CLIP_CONFIG, RECORDS, draw, video_of, weights_of
from vitaclip.config import DataConfig, ModelConfig
from vitaclip.config.methods import MethodConfig
from vitaclip.methods.build import builder
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone, build_clip

# The authors' names as patterns -> ours. What no pattern fits is a weight of CLIP's.
X_CLIP = {
    r"^visual\.transformer\.resblocks\.(\d+)\.message_fc\.": r"layers.\1.message_proj.",
    r"^visual\.transformer\.resblocks\.(\d+)\.message_ln\.": r"layers.\1.message_norm.",
    r"^visual\.transformer\.resblocks\.(\d+)\.message_attn\.": r"layers.\1.message_attention.",
    r"^mit\.positional_embedding": "integration.position",
    r"^mit\.resblocks\.": "integration.blocks.",
    r"^prompts_visual_ln\.": "patch_norm.",
    r"^prompts_visual_proj": "patch_proj",
    r"^prompts_generator\.alpha": "text_prompts.scale",
    r"^prompts_generator\.norm\.": "text_prompts.norm.",
    r"^prompts_generator\.decoder\.(\d+)\.cross_attn\.proj\.": r"text_prompts.layers.\1.out_proj.",
    r"^prompts_generator\.decoder\.(\d+)\.cross_attn\.": r"text_prompts.layers.\1.",
    r"^prompts_generator\.decoder\.(\d+)\.norm1\.": r"text_prompts.layers.\1.attention_norm.",
    r"^prompts_generator\.decoder\.(\d+)\.norm3\.": r"text_prompts.layers.\1.mlp_norm.",
    r"^prompts_generator\.decoder\.(\d+)\.mlp\.3\.": r"text_prompts.layers.\1.mlp.2.",
    r"^prompts_generator\.decoder\.(\d+)\.mlp\.0\.": r"text_prompts.layers.\1.mlp.0.",
}
ST_ADAPTER = {
    rf"^transformer\.resblocks\.(\d+)\.adapter_pre_{theirs}\.{part}\.": rf"layers.\1.{ours}.{name}."
    for theirs, ours in (("attn", "before_attention"), ("mlp", "before_mlp"))
    for part, name in (("fc1", "down"), ("conv", "conv"), ("fc2", "up"))
}
AIM = {
    rf"^transformer\.resblocks\.(\d+)\.{theirs}\.D_fc{n}\.": rf"layers.\1.{ours}.{name}."
    for theirs, ours in (
        ("T_Adapter_in", "before_time"),
        ("T_Adapter", "after_time"),
        ("S_Adapter", "after_space"),
        ("MLP_Adapter", "beside_mlp"),
    )
    for n, name in ((1, "down"), (2, "up"))
} | {r"^temporal_embedding": "time_embedding"}


def model_of(case: str, method: dict[str, Any], names: dict[str, str]) -> VideoModel:
    """Our model, with the weights of the record where the authors' model has them."""
    added: dict[str, Tensor] = {}
    clips_own: dict[str, Tensor] = {}
    for name, weight in weights_of(case).items():
        ours = next((re.sub(p, r, name) for p, r in names.items() if re.search(p, name)), None)
        (clips_own if ours is None else added)[ours or name] = weight
    if "visual.proj" not in clips_own:  # an image tower alone, without its projection
        whole = {name: torch.zeros_like(t) for name, t in CLIP(**CLIP_CONFIG).state_dict().items()}
        clips_own = whole | {f"visual.{name}": weight for name, weight in clips_own.items()}
        clips_own["visual.proj"] = draw("visual.proj", (128, 128))
        clips_own.pop("attn_mask", None)
    clip = build_clip(CLIP_CONFIG, clips_own, source="record")
    record = RECORDS[case]
    config = ModelConfig(
        method=MethodConfig.model_validate(method), data=DataConfig(num_frames=record["num_frames"])
    )
    build = builder(config.method.name)
    model = build(Backbone(clip, "record"), config, tuple(record["classes"]))
    wanted = model.state_dict()
    fitting = {name: t.reshape(wanted[name].shape) for name, t in added.items() if name in wanted}
    _, unexpected = model.load_state_dict(fitting, strict=False)
    assert not unexpected
    # What our model lacks: the adapter before the last block's MLP, of which nothing is read.
    assert all("layers.1.before_mlp" in name for name in added.keys() - wanted.keys())
    given = {f"clip.{name}" for name in clips_own} | fitting.keys() | {"logit_scale"}
    assert given >= wanted.keys()
    return model


@pytest.mark.parametrize(
    ("case", "method", "names"),
    [
        ("x_clip", {"name": "x_clip", "x_clip": {"num_integration_layers": 2}}, X_CLIP),
        ("full_finetune", {"name": "full_finetune"}, {}),
    ],
)
@torch.no_grad()
def test_features_and_logits(case: str, method: dict[str, Any], names: dict[str, str]) -> None:
    model, record = model_of(case, method, names), RECORDS[case]
    video, text = model.encode_video(video_of(case)), model.encode_classes()
    found = {"video": video if video.ndim == 2 else video[:, 0], "text": text}
    found["logits"] = model.logits(video, text)
    for name, tensor in found.items():
        wanted = torch.tensor(record[name])
        assert wanted.std() > 10 * 1e-5, "a record of equal figures shows nothing"
        torch.testing.assert_close(tensor, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "name", "settings", "names"),
    [
        ("st_adapter_attention", "st_adapter", {"place": "attention", "width": 24}, ST_ADAPTER),
        ("st_adapter_mlp", "st_adapter", {"place": "mlp", "width": 24}, ST_ADAPTER),
        ("st_adapter_both", "st_adapter", {"place": "both", "width": 24}, ST_ADAPTER),
        ("aim_1", "aim", {"num_temporal": 1}, AIM),
        ("aim_2", "aim", {"num_temporal": 2}, AIM),
    ],
)
@torch.no_grad()
def test_features_before_the_authors_head(
    case: str, name: str, settings: dict[str, Any], names: dict[str, str]
) -> None:
    """The authors classify the image tower's own features; ours go on through CLIP's projection."""
    model = model_of(case, {"name": name, name: settings}, names)
    wanted = torch.tensor(RECORDS[case]["video_width"]) @ model.clip.visual.proj
    assert wanted.std() > 10 * 1e-5
    torch.testing.assert_close(model.encode_video(video_of(case)), wanted, atol=1e-5, rtol=1e-5)
