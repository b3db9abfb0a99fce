"""CLIP weights from a local file, in OpenAI's, open_clip's or Hugging Face's naming, renamed to
open_clip's.

A file may also tell which activation its weights were trained with; with the other one all results
are quietly wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import open_clip
import torch
from torch import Tensor

from vitaclip.errors import InputError, first_line
from vitaclip.model.tensor_file import read_tensor_file, write_tensors

StateDict = dict[str, Tensor]

# Scalars that OpenAI keeps beside the weights, in its archives and in what was saved of them.
_OPENAI_SCALARS: Final = ("input_resolution", "context_length", "vocab_size")
_OF_EVERY_CLIP: Final = (
    "visual.conv1.weight",
    "visual.proj",
    "token_embedding.weight",
    "text_projection",
)
_QUICK_GELU: Final = "quick_gelu"
_MAX_CONFIG_BYTES: Final = 10**6


class ClipWeights(NamedTuple):
    """Weights in open_clip's naming, and whether they were trained with QuickGELU; None: the file
    does not say.
    """

    tensors: StateDict
    quick_gelu: bool | None


def read_clip_weights(path: Path) -> ClipWeights:
    """Reads a file of CLIP weights.

    Raises:
        InputError: the file is missing, empty, damaged, or holds anything but tensors.
    """
    weights, metadata = read_tensor_file(path)
    quick_gelu = _activation(weights, metadata, path)
    try:
        return ClipWeights(_renamed(weights), quick_gelu)
    except (RuntimeError, IndexError, KeyError) as error:
        raise InputError(
            f"{path}: its tensors have other shapes than a CLIP's: {first_line(error)}"
        ) from error


def write_clip_weights(path: Path, weights: ClipWeights) -> None:
    """Writes them as safetensors in full precision, with what is known of their activation. Raises
    InputError.
    """
    known = weights.quick_gelu is not None
    metadata = {_QUICK_GELU: str(bool(weights.quick_gelu)).lower()} if known else None
    write_tensors(
        path, {name: tensor.float() for name, tensor in weights.tensors.items()}, metadata
    )


def convert_clip_weights(source: Path, target: Path) -> None:
    """Reads CLIP weights of any layout and writes them as safetensors.

    Raises:
        InputError: ``source`` cannot be read or holds other weights, or ``target`` cannot be
            written.
    """
    weights = read_clip_weights(source)
    if missing := [name for name in _OF_EVERY_CLIP if name not in weights.tensors]:
        raise InputError(f"{source}: these are not the weights of a CLIP: {missing[0]} is missing")
    write_clip_weights(target, weights)


def _renamed(weights: StateDict) -> StateDict:
    weights = {name: tensor for name, tensor in weights.items() if name not in _OPENAI_SCALARS}
    if any(name.startswith("vision_model.") for name in weights):
        weights = _from_hugging_face(weights)
    # open_clip's CustomTextCLIP keeps the text tower apart.
    weights = {name.removeprefix("text."): tensor for name, tensor in weights.items()}
    if "token_ids" in weights:
        weights["token_embedding.weight"] = _scatter_token_rows(weights.pop("token_ids"), weights)
    return weights


def _activation(weights: StateDict, metadata: Mapping[str, str], path: Path) -> bool | None:
    """Whether the weights were trained with QuickGELU, from the marks that files carry."""
    if _QUICK_GELU in metadata:
        return metadata[_QUICK_GELU] == "true"
    if any(name in weights for name in _OPENAI_SCALARS):
        return True
    if any(name.startswith("vision_model.") for name in weights):
        towers = [
            _section(_neighbor(path, "config.json"), f"{tower}_config")
            for tower in ("vision", "text")
        ]
        activations = {str(tower["hidden_act"]) for tower in towers if "hidden_act" in tower}
        return activations == {"quick_gelu"} if activations else None
    model = _section(_neighbor(path, "open_clip_config.json"), "model_cfg")
    return bool(model.get("quick_gelu", False)) if model else None


def _neighbor(path: Path, name: str) -> dict[str, Any]:
    """The JSON that hubs put beside a file of weights; empty if there is none that can be read."""
    try:
        with path.with_name(name).open("rb") as file:
            content = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}


def _scatter_token_rows(token_ids: Tensor, weights: StateDict) -> Tensor:
    """The quickstart's file holds only the embeddings of words it was trained on; all other rows
    are zero.
    """
    rows = weights["token_embedding.weight"]
    table = rows.new_zeros(len(open_clip.tokenizer._tokenizer.encoder), rows.shape[1])
    table[token_ids.long()] = rows
    return table


_HF_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def _from_hugging_face(weights: StateDict) -> StateDict:
    """Hugging Face's ``CLIPModel`` naming to open_clip's: other names, q/k/v apart, projections
    transposed.
    """
    renamed: StateDict = {}
    for name, tensor in weights.items():
        if name.endswith(".position_ids"):  # a buffer that counts 0, 1, 2, ...
            continue
        if name in ("visual_projection.weight", "text_projection.weight"):
            tensor = tensor.T.contiguous()
        for pattern, replacement in _HF_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.q_proj." in name]:
        parts = [renamed.pop(name.replace(".q_proj.", f".{part}_proj."), None) for part in "qkv"]
        if all(part is not None for part in parts):
            renamed[name.replace(".q_proj.", ".in_proj_")] = torch.cat(
                [p for p in parts if p is not None]
            )
    return renamed
