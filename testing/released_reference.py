"""The released Vita-CLIP in its own names, written the straightforward way, and records of it on
synthetic weights.

Nothing here uses the product's model or its table of names: what the released model computes is
told a second time, from a state dict as the authors' files hold it. ``synthetic_record`` draws such
a state dict from a seed and records the model's outputs, gradients and optimizer steps in the form
of the records of the authors' own code (``../shared/parity``, where they lie beside a checkout:
this file was checked against them, and is wherever they are). ``testing/records/released.json``
pins the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]
CLASSES = ["abseiling", "ride_bike", "ApplyEyeMakeup", "tai chi", "playing didgeridoo"]
CONFIG = {
    "size": 32,
    "patch": 16,
    "num_frames": 4,
    "feature_dim": 48,
    "num_heads": 3,
    "num_layers": 3,
    "num_global": 2,
    "embed_dim": 24,
    "text_width": 32,
    "text_heads": 2,
    "text_layers": 2,
    "text_num_prompts": 4,
}
_TRAINED = (
    "logit_scale",
    "time_embed",
    "global_prompts",
    "local_prompts",
    "summary_ln",
    "summary_attn",
    ".ctx",
)


def video_features(w: Weights, config: Mapping[str, int], video_BCTHW: Tensor) -> Tensor:
    """``[B, E]``: the mean over frames of the projected CLS tokens."""
    batch, _, frames, _, _ = video_BCTHW.shape
    images = video_BCTHW.transpose(1, 2).flatten(0, 1)
    patch = w["visual.patch_embed.proj.weight"], w["visual.patch_embed.proj.bias"]
    x = F.conv2d(images, *patch, stride=config["patch"]).flatten(2).transpose(1, 2)
    x = torch.cat([w["visual.cls_token"].expand(len(x), 1, -1), x], dim=1) + w["visual.pos_embed"]
    x = x + w["visual.time_embed"].repeat(batch, 1)[:, None]
    x = _norm(w, "visual.ln_pre", x)
    for layer in range(config["num_layers"]):
        x = _vision_block(w, layer, x, frames, config["num_heads"])
    features = _norm(w, "visual.ln_post", x[:, 0]) @ w["visual.proj"]
    return features.view(batch, frames, -1).mean(dim=1)


def _vision_block(w: Weights, layer: int, x: Tensor, frames: int, heads: int) -> Tensor:
    name, num_tokens = f"visual.blocks.{layer}", x.shape[1]
    cls = _linear(w, f"{name}.cls_proj", x[:, 0]).view(-1, frames, x.shape[-1])
    summary = cls + _self_attention(
        w, f"{name}.summary_attn_layer", _norm(w, f"{name}.summary_ln", cls), heads
    )
    local = (w[f"{name}.local_prompts"] + cls).repeat_interleave(frames, dim=0)
    everywhere = w["visual.global_prompts"][layer].expand(len(x), -1, -1)
    tokens = torch.cat(
        [x[:, :1], local, everywhere, x[:, 1:], summary.reshape(len(x), 1, -1)], dim=1
    )
    tokens = tokens + _self_attention(w, f"{name}.attn", _norm(w, f"{name}.norm1", tokens), heads)
    num_prompts = local.shape[1] + everywhere.shape[1]
    x = torch.cat([tokens[:, :1], tokens[:, 1 + num_prompts : num_tokens + num_prompts]], dim=1)
    hidden = _linear(w, f"{name}.mlp.fc1", _norm(w, f"{name}.norm2", x))
    return x + _linear(w, f"{name}.mlp.fc2", _quick_gelu(hidden))


def text_features(w: Weights, config: Mapping[str, int]) -> Tensor:
    """``[C, E]``: learned context between the start token and each class name."""
    prefix, suffix = w["prompt_learner.token_prefix"], w["prompt_learner.token_suffix"]
    context = w["prompt_learner.ctx"].expand(len(prefix), -1, -1)
    x = torch.cat([prefix, context, suffix], dim=1) + w["textual.positional_embedding"]
    mask = torch.full((x.shape[1], x.shape[1]), -math.inf, dtype=x.dtype).triu(1)
    for layer in range(config["text_layers"]):
        name = f"textual.transformer.resblocks.{layer}"
        joined = F.linear(
            _norm(w, f"{name}.ln_1", x),
            w[f"{name}.attn.in_proj_weight"],
            w[f"{name}.attn.in_proj_bias"],
        )
        q, k, v = joined.chunk(3, dim=-1)
        mixed = _mix(q, k, v, config["text_heads"], mask)
        x = x + _linear(w, f"{name}.attn.out_proj", mixed)
        hidden = _linear(w, f"{name}.mlp.c_fc", _norm(w, f"{name}.ln_2", x))
        x = x + _linear(w, f"{name}.mlp.c_proj", _quick_gelu(hidden))
    ends = _tokens(config["text_num_prompts"]).argmax(dim=-1)
    return (
        _norm(w, "textual.ln_final", x)[torch.arange(len(x)), ends] @ w["textual.text_projection"]
    )


def outputs(
    w: Weights, config: Mapping[str, int], video_BCTHW: Tensor, labels_B: Tensor
) -> dict[str, Tensor]:
    """Features, logits ``[B, C]`` and loss."""
    video, text = video_features(w, config, video_BCTHW), text_features(w, config)
    logits = w["logit_scale"].exp() * F.normalize(video, dim=-1) @ F.normalize(text, dim=-1).T
    return {
        "video_features": video,
        "text_features": text,
        "logits": logits,
        "loss": F.cross_entropy(logits, labels_B),
    }


def _self_attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (_linear(w, f"{name}.{part}_proj", x) for part in "qkv")
    return _linear(w, f"{name}.out_proj", _mix(q, k, v, heads))


def _mix(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores + mask
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


@cache
def _tokens(num_context: int) -> Tensor:
    """``[C, 77]`` of the class names behind placeholders."""
    texts = [f"{'X ' * num_context}{name.replace('_', ' ')}." for name in CLASSES]
    tokens: Tensor = open_clip.tokenize(texts)
    return tokens


@cache
def synthetic_record(*, class_specific: bool, seed: int = 20) -> dict[str, Any]:
    """A state dict drawn from a seed, and what the model of this file computes with it.

    NumPy's generator draws: its numbers are the same in every version.
    """
    rng = np.random.default_rng(seed)
    state = _state_dict(rng, class_specific)
    clip = (3, 3, CONFIG["num_frames"], CONFIG["size"], CONFIG["size"])
    record = {
        "config": dict(CONFIG),
        "classes": list(CLASSES),
        "state_dict_f16": state,
        "x_f16": torch.from_numpy(rng.standard_normal(clip)).half(),
        "labels": torch.tensor([0, 3, 4]),
    }
    record |= _computed(record, torch.float32)
    return record | {"fp64": _computed(record, torch.float64), "train": _trained(record)}


def _state_dict(rng: np.random.Generator, class_specific: bool) -> dict[str, Tensor]:
    c, width, text = CONFIG, CONFIG["feature_dim"], CONFIG["text_width"]
    shapes: dict[str, tuple[int, ...]] = {
        "visual.cls_token": (width,),
        "visual.pos_embed": (1 + (c["size"] // c["patch"]) ** 2, width),
        "visual.time_embed": (c["num_frames"], width),
        "visual.proj": (width, c["embed_dim"]),
        "visual.global_prompts": (c["num_layers"], c["num_global"], width),
        "visual.patch_embed.proj.weight": (width, 3, c["patch"], c["patch"]),
        "textual.positional_embedding": (77, text),
        "textual.text_projection": (text, c["embed_dim"]),
        "textual.token_embedding.weight": (49408, text),
        "prompt_learner.ctx": (
            *([len(CLASSES)] if class_specific else []),
            c["text_num_prompts"],
            text,
        ),
    }
    norms = ["visual.ln_pre", "visual.ln_post"]
    for name in (f"visual.blocks.{i}" for i in range(c["num_layers"])):
        shapes[f"{name}.local_prompts"] = (1, c["num_frames"], width)
        for part in (*(f"attn.{p}_proj" for p in ("q", "k", "v", "out")), "cls_proj"):
            shapes |= _dense(f"{name}.{part}", width, width)
        for part in "qkv":
            shapes |= _dense(f"{name}.summary_attn_layer.{part}_proj", width, width)
        shapes |= _dense(f"{name}.summary_attn_layer.out_proj", width, width)
        shapes |= _dense(f"{name}.mlp.fc1", 4 * width, width) | _dense(
            f"{name}.mlp.fc2", width, 4 * width
        )
        norms += [f"{name}.norm1", f"{name}.norm2", f"{name}.summary_ln"]
    for name in (f"textual.transformer.resblocks.{i}" for i in range(c["text_layers"])):
        shapes |= {
            f"{name}.attn.in_proj_weight": (3 * text, text),
            f"{name}.attn.in_proj_bias": (3 * text,),
        }
        shapes |= _dense(f"{name}.attn.out_proj", text, text)
        shapes |= _dense(f"{name}.mlp.c_fc", 4 * text, text) | _dense(
            f"{name}.mlp.c_proj", text, 4 * text
        )
        norms += [f"{name}.ln_1", f"{name}.ln_2"]
    norms.append("textual.ln_final")
    state = {name: _draw(rng, name, shape) for name, shape in shapes.items()}
    for name in norms:
        size = text if name.startswith("textual.") else width
        state[f"{name}.weight"] = 1 + _draw(rng, f"{name}.bias", (size,))
        state[f"{name}.bias"] = _draw(rng, f"{name}.bias", (size,))
    state["visual.patch_embed.proj.bias"] = torch.zeros(width).half()
    state["logit_scale"] = torch.tensor(math.log(100)).half()
    embedded = state["textual.token_embedding.weight"][_tokens(c["text_num_prompts"])]
    state["prompt_learner.token_prefix"] = embedded[:, :1]
    state["prompt_learner.token_suffix"] = embedded[:, 1 + c["text_num_prompts"] :]
    return state


def _dense(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Tensor:
    """Random numbers of about the size that trained weights have."""
    scale = shape[-1] ** -0.5 if name.endswith("weight") and len(shape) == 2 else 0.05
    return torch.from_numpy(
        rng.standard_normal(shape) * (0.3 if "token_embedding" in name else scale)
    ).half()


def _computed(record: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    weights = _parameters(record, dtype)
    found = outputs(weights, record["config"], record["x_f16"].to(dtype), record["labels"])
    found["loss"].backward()
    grads = {name: tensor.grad for name, tensor in weights.items() if tensor.grad is not None}
    return {**{name: tensor.detach() for name, tensor in found.items()}, "grads": grads}


def _parameters(record: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights; those that the released training changes ask for gradients."""
    return {
        name: tensor.to(dtype).clone().requires_grad_(any(part in name for part in _TRAINED))
        for name, tensor in record["state_dict_f16"].items()
    }


def _trained(record: Mapping[str, Any]) -> dict[str, Any]:
    weights = _parameters(record, torch.float32)
    lr, weight_decay, t_max = 4e-4, 0.05, 10
    trained = [tensor for tensor in weights.values() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, t_max)
    losses, lrs = [], []
    video = record["x_f16"].float()
    for _ in range(3):
        lrs.append(optimizer.param_groups[0]["lr"])
        loss = outputs(weights, record["config"], video, record["labels"])["loss"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    after = outputs(weights, record["config"], video, record["labels"])["logits"].detach()
    recipe = {"lr": lr, "weight_decay": weight_decay, "t_max": t_max}
    return {**recipe, "losses": losses, "lrs": lrs, "logits_after": after}
