"""The frozen CLIP that carries the prompts: any plain CLIP ViT that open_clip builds.

Weights come by open_clip's name and tag, or from a local file in OpenAI's, open_clip's or Hugging Face's naming.
Every key of the file must be used and every weight of the model found; nothing is left at random.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, resize_pos_embed
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitaclip.config import BackboneConfig
from vitaclip.errors import InputError, suggest

StateDict = dict[str, Tensor]

QUICKSTART_FOLDER = Path(__file__).parent.parent / "quickstart"
QUICKSTART_TAG = "quickstart"
RANDOM_TAG = "random"

# Scalars that OpenAI's archives keep beside the weights.
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP, the identity of its weights, and how it wants its pixels normalised."""

    clip: CLIP
    sha256: str
    pixel_mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    pixel_std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD

    @property
    def image_size(self) -> int:
        """Height and width in pixels that the vision tower takes."""
        return int(self.clip.visual.image_size[0])


def num_layers(config: BackboneConfig) -> int:
    """Number of layers of the vision tower, read from open_clip's model config without loading weights."""
    return int(_model_config(config)["vision_cfg"]["layers"])


def check_backbone(config: BackboneConfig) -> None:
    """Checks name, image size and weights without loading them.

    Raises:
        InputError: the model name, the tag or file, or the image size cannot be used.
    """
    model_config = _model_config(config)
    if config.pretrained not in (RANDOM_TAG, QUICKSTART_TAG) and not _tag_config(config):
        _local_file(config)
    image_size, patch_size = (
        model_config["vision_cfg"]["image_size"],
        model_config["vision_cfg"]["patch_size"],
    )
    if image_size % patch_size:
        raise InputError(
            f"backbone.image_size: found {image_size}, allowed are multiples of the patch size {patch_size} "
            f"of {config.name}"
        )


def load_backbone(config: BackboneConfig, *, seed: int = 0) -> Backbone:
    """Builds the CLIP named by ``config``, loads its weights and freezes it.

    ``pretrained: random`` gives seeded random weights (tests and benchmarks).

    Raises:
        InputError: unknown name or tag, unreachable or unreadable weights, or keys that do not fit.
    """
    check_backbone(config)
    model_config = _model_config(config)
    tag_config = _tag_config(config)
    if config.pretrained == RANDOM_TAG:
        return _backbone(_random_clip(model_config, seed))
    path = _weights_path(config, tag_config)
    clip = build_clip(model_config, read_weights(path), source=str(path))
    return _backbone(
        clip,
        pixel_mean=tuple(tag_config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        pixel_std=tuple(tag_config.get("std") or open_clip.OPENAI_DATASET_STD),
    )


def build_clip(model_config: dict[str, Any], weights: StateDict, *, source: str) -> CLIP:
    """A frozen fp32 CLIP of open_clip's ``model_config`` holding ``weights`` (open_clip's naming).

    The position embedding is interpolated to the model's grid as open_clip does.

    Raises:
        InputError: the model is no plain CLIP ViT, or keys or shapes do not fit; all misfits are listed.
    """
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        clip = CLIP(**copy.deepcopy(model_config))
    _check_plain_vit(clip, source)
    weights = {name: tensor.float() for name, tensor in weights.items()}
    resize_pos_embed(weights, clip)
    if "visual.conv1.bias" in weights:  # the released Vita-CLIP gave the patch embedding a bias
        clip.visual.conv1.bias = nn.Parameter(torch.empty_like(weights["visual.conv1.bias"], device="meta"))
    _check_fit(clip.state_dict(), weights, source)
    clip.load_state_dict(weights, assign=True)
    return _freeze(clip)


def read_weights(path: Path) -> StateDict:
    """Reads CLIP weights from a safetensors file or a pickle of tensors only, renamed to open_clip's naming.

    Raises:
        InputError: the file is missing, is a TorchScript archive, or holds anything but tensors.
    """
    weights = _unwrap(_read_tensors(path))
    if any(name.startswith("vision_model.") for name in weights):
        weights = _from_hugging_face(weights)
    if any(
        name.startswith("text.") for name in weights
    ):  # open_clip's CustomTextCLIP keeps the text tower apart
        weights = {name.removeprefix("text."): tensor for name, tensor in weights.items()}
    if "token_ids" in weights:
        weights["token_embedding.weight"] = _scatter_token_rows(weights.pop("token_ids"), weights)
    return weights


def weights_sha256(clip: CLIP) -> str:
    """Hash of all weights (names, shapes, fp32 bytes): the identity that checkpoints are bound to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _backbone(clip: CLIP, **pixels: Any) -> Backbone:
    return Backbone(clip=clip, sha256=weights_sha256(clip), **pixels)


def _model_config(config: BackboneConfig) -> dict[str, Any]:
    open_clip.add_model_config(QUICKSTART_FOLDER)
    model_config = open_clip.get_model_config(config.name)
    if model_config is None:
        raise InputError(
            f"backbone.name: found '{config.name}', allowed are open_clip's model names"
            f"{suggest(config.name, open_clip.list_models())}; see open_clip.list_models()"
        )
    vision, text = model_config["vision_cfg"], model_config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text or isinstance(vision.get("layers"), list):
        raise InputError(
            f"backbone.name: '{config.name}' is no CLIP ViT with CLIP's own text tower; take one such as ViT-B-16"
        )
    for unsupported in ("custom_text", "multimodal_cfg"):
        if model_config.pop(unsupported, None) and unsupported == "multimodal_cfg":
            raise InputError(f"backbone.name: '{config.name}' is a CoCa model, allowed are plain CLIP ViTs")
    if config.image_size is not None:
        vision["image_size"] = config.image_size
    if tag_config := _tag_config(config):  # the weights decide, not the spelling of the model's name
        model_config["quick_gelu"] = bool(tag_config.get("quick_gelu", False))
    return dict(model_config)


def _tag_config(config: BackboneConfig) -> dict[str, Any]:
    return dict(open_clip.get_pretrained_cfg(config.name, config.pretrained) or {})


def _weights_path(config: BackboneConfig, tag_config: dict[str, Any]) -> Path:
    if config.pretrained == QUICKSTART_TAG:
        return QUICKSTART_FOLDER / f"{config.name}.safetensors"
    if not tag_config:
        return _local_file(config)
    try:
        return Path(open_clip.download_pretrained(tag_config))
    except Exception as error:  # huggingface_hub, urllib and OS errors alike: the download did not work
        raise InputError(
            f"backbone.pretrained: the weights '{config.pretrained}' of {config.name} could not be downloaded "
            f"({type(error).__name__}); give the path of a local file instead"
        ) from error


def _local_file(config: BackboneConfig) -> Path:
    path = Path(config.pretrained).expanduser()
    if not path.is_file():
        tags = open_clip.list_pretrained_tags_by_model(config.name)
        raise InputError(
            f"backbone.pretrained: found '{config.pretrained}', which is no file and no tag of {config.name}"
            f"{suggest(config.pretrained, tags)}; allowed tags: {', '.join(tags) or 'none'}"
        )
    return path


def _random_clip(model_config: dict[str, Any], seed: int) -> CLIP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIP(**model_config)
    _check_plain_vit(clip, "backbone")
    return _freeze(clip)


def _freeze(clip: CLIP) -> CLIP:
    clip.register_buffer("attn_mask", None, persistent=False)  # the text tower asks SDPA for a causal mask
    return clip.requires_grad_(False).eval()


def _check_plain_vit(clip: CLIP, source: str) -> None:
    """Refuses CLIPs whose towers compute something else than the ones this project implements."""
    visual = clip.visual
    reasons = {
        "the vision tower is no ViT": not isinstance(visual, VisionTransformer),
        "attentional pooling": getattr(visual, "attn_pool", None) is not None,
        f"pooling '{getattr(visual, 'pool_type', '')}'": getattr(visual, "pool_type", "tok") != "tok",
        "final LayerNorm after pooling": getattr(visual, "final_ln_after_pool", False),
        f"text pooling '{clip.text_pool_type}'": clip.text_pool_type != "argmax",
        "a text tower without causal mask": clip.attn_mask is None,
        "a text projection with bias": not isinstance(clip.text_projection, nn.Parameter),
        "a logit bias": clip.logit_bias is not None,
        "other blocks than CLIP's": not all(_is_plain_block(block) for block in _blocks(clip)),
    }
    found = [reason for reason, is_found in reasons.items() if is_found]
    if found:
        raise InputError(
            f"{source}: this CLIP has {', '.join(found)}; allowed are plain CLIP ViTs such as ViT-B-16"
        )


def _blocks(clip: CLIP) -> list[nn.Module]:
    towers = [clip.transformer] + (
        [clip.visual.transformer] if isinstance(clip.visual, VisionTransformer) else []
    )
    return [block for tower in towers for block in tower.resblocks]


def _is_plain_block(block: nn.Module) -> bool:
    return isinstance(block, ResidualAttentionBlock) and isinstance(block.ls_1, nn.Identity)


def _check_fit(wanted: StateDict, found: StateDict, source: str) -> None:
    problems = [f"missing: {name}" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"not used: {name}" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"{name}: found {tuple(found[name].shape)}, needed {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name].shape != found[name].shape
    ]
    if problems:
        raise InputError(f"{source}: {len(problems)} keys do not fit this model:\n  " + "\n  ".join(problems))


def _read_tensors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{path}: allowed are safetensors files and pickles that hold tensors only "
            f"(no TorchScript archive); reading it failed: {str(error).splitlines()[0]}"
        ) from error


def _unwrap(content: dict[str, Any]) -> StateDict:
    """Takes a training checkpoint's ``state_dict`` and DDP's ``module.`` prefix off."""
    weights = content.get("state_dict", content)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return {name: value for name, value in weights.items() if name not in _OPENAI_SCALARS}


def _scatter_token_rows(token_ids: Tensor, weights: StateDict) -> Tensor:
    """The quickstart's file holds only the embeddings of words it was trained on; all other rows are zero."""
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
    """Hugging Face's ``CLIPModel`` naming to open_clip's: other names, q/k/v apart, projections transposed."""
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
            renamed[name.replace(".q_proj.", ".in_proj_")] = torch.cat([p for p in parts if p is not None])
    return renamed
