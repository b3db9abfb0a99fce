"""Names of the authors' released Vita-CLIP state dict, to and from ours. Values are never changed.

The released file holds the whole model; ours keeps the frozen CLIP (open_clip's naming) and the
learned part apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vitaclip.errors import InputError

StateDict = dict[str, Tensor]

# (released, ours) for frozen CLIP weights; {i} is the layer. q/k/v projections are handled apart.
_FROZEN = (
    ("visual.cls_token", "visual.class_embedding"),
    ("visual.pos_embed", "visual.positional_embedding"),
    ("visual.proj", "visual.proj"),
    ("visual.patch_embed.proj.", "visual.conv1."),
    ("visual.ln_pre.", "visual.ln_pre."),
    ("visual.ln_post.", "visual.ln_post."),
    ("visual.blocks.{i}.attn.out_proj.", "visual.transformer.resblocks.{i}.attn.out_proj."),
    ("visual.blocks.{i}.mlp.fc1.", "visual.transformer.resblocks.{i}.mlp.c_fc."),
    ("visual.blocks.{i}.mlp.fc2.", "visual.transformer.resblocks.{i}.mlp.c_proj."),
    ("visual.blocks.{i}.norm1.", "visual.transformer.resblocks.{i}.ln_1."),
    ("visual.blocks.{i}.norm2.", "visual.transformer.resblocks.{i}.ln_2."),
    ("textual.", ""),
)
_LEARNED = (
    ("logit_scale", "logit_scale"),
    ("visual.time_embed", "vision_prompts.time_embedding"),
    ("visual.blocks.{i}.local_prompts", "vision_prompts.layers.{i}.local_prompts"),
    ("visual.blocks.{i}.cls_proj.", "vision_prompts.layers.{i}.cls_proj."),
    ("visual.blocks.{i}.summary_ln.", "vision_prompts.layers.{i}.summary_norm."),
    ("visual.blocks.{i}.summary_attn_layer.", "vision_prompts.layers.{i}.summary_attention."),
    ("prompt_learner.ctx", "text_prompts.context"),
)
_GLOBAL, _OUR_GLOBAL = "visual.global_prompts", "vision_prompts.layers.{i}.global_prompts"
_QKV = re.compile(r"^visual\.blocks\.(\d+)\.attn\.q_proj\.(weight|bias)$")
# Embeddings of the class names' tokens: a copy of rows of the token embedding, so nothing is
# learned in them.
_DERIVED = ("prompt_learner.token_prefix", "prompt_learner.token_suffix")
_CONV_BIAS = "visual.conv1.bias"


def split_released(released: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    """Released state dict -> (frozen CLIP in open_clip's naming, learned part in ours).

    Raises:
        InputError: keys that the released model does not have; the first are named.
    """
    rest = {
        name.removeprefix("module."): tensor for name, tensor in released.items() if _is_kept(name)
    }
    frozen, learned = _take_qkv(rest), _take_global(rest)
    unknown = []
    for name, tensor in rest.items():
        if (ours := _rename(name, _LEARNED)) is not None:
            learned[ours] = tensor[0] if name.endswith(".local_prompts") else tensor
        elif (ours := _rename(name, _FROZEN)) is not None:
            frozen[ours] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"{len(unknown)} keys that no released Vita-CLIP checkpoint has: "
            f"{', '.join(sorted(unknown)[:5])}"
        )
    if _CONV_BIAS in frozen and not frozen[_CONV_BIAS].any():
        # CLIP's patch embedding has no bias; the released model adds one of zeros
        del frozen[_CONV_BIAS]
    frozen["logit_scale"] = learned["logit_scale"]
    return frozen, learned


def join_released(frozen: Mapping[str, Tensor], learned: Mapping[str, Tensor]) -> StateDict:
    """The inverse of :func:`split_released`, without the derived token embeddings of the class
    names.
    """
    released: StateDict = {}
    for name, tensor in frozen.items():
        released.update(_frozen_to_released(name, tensor))
    width = frozen["visual.class_embedding"].shape[0]
    released.setdefault("visual.patch_embed.proj.bias", torch.zeros(width))
    global_prompts = {}
    for name, tensor in learned.items():
        if layer := re.fullmatch(_OUR_GLOBAL.replace(".", r"\.").format(i=r"(\d+)"), name):
            global_prompts[int(layer[1])] = tensor
        elif (theirs := _rename(name, [(ours, theirs) for theirs, ours in _LEARNED])) is not None:
            released[theirs] = tensor.unsqueeze(0) if name.endswith(".local_prompts") else tensor
        else:
            raise InputError(
                f"'{name}' has no place in the released format (deep text prompts are not part of "
                "it)"
            )
    if global_prompts:
        released[_GLOBAL] = torch.stack([global_prompts[layer] for layer in sorted(global_prompts)])
    return released


def _is_kept(name: str) -> bool:
    return name.removeprefix("module.") not in _DERIVED


def _take_qkv(rest: StateDict) -> StateDict:
    """Moves the separate q/k/v projections of the vision blocks out of ``rest``, joined as CLIP
    keeps them.
    """
    joined = {}
    for name in list(rest):
        if match := _QKV.match(name):
            parts = [rest.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            joined[f"visual.transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(
                parts
            )
    return joined


def _take_global(rest: StateDict) -> StateDict:
    stacked = rest.pop(_GLOBAL, None)
    layers = [] if stacked is None else list(stacked)
    return {_OUR_GLOBAL.format(i=i): prompts.clone() for i, prompts in enumerate(layers)}


def _frozen_to_released(name: str, tensor: Tensor) -> StateDict:
    if match := re.fullmatch(
        r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", name
    ):
        names = [f"visual.blocks.{match[1]}.attn.{part}_proj.{match[2]}" for part in "qkv"]
        return dict(zip(names, (part.clone() for part in tensor.chunk(3)), strict=True))
    if name == "logit_scale":  # the learned one is exported
        return {}
    visual_only = [(ours, theirs) for theirs, ours in _FROZEN if ours]
    return {_rename(name, visual_only) or f"textual.{name}": tensor}


def _rename(name: str, table: object) -> str | None:
    for source, target in table:  # type: ignore[attr-defined]
        pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)")
        match = re.match(pattern + ("" if source.endswith(".") else "$"), name)
        if match:
            layer = match.groupdict().get("i", "")
            return str(target).format(i=layer) + name[match.end() :]
    return None
