"""The frozen CLIP that carries the prompts: any plain CLIP ViT that open_clip builds.

Weights come by open_clip's name and tag, or from a local file in OpenAI's, open_clip's or Hugging
Face's naming. Every key of the file must be used and every weight of the model found; nothing is
left at random.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, resize_pos_embed
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from vitaclip.clip_config import QUICKSTART_FOLDER, read_clip_config
from vitaclip.config.model import BackboneConfig
from vitaclip.errors import InputError, first_line, suggest
from vitaclip.model.clip_weights import ClipWeights, StateDict, read_clip_weights
from vitaclip.model.hub import fetch_weights

QUICKSTART_TAG = "quickstart"
RANDOM_TAG = "random"
MAX_RANDOM = 500_000_000  # weights: 2 GB, for which no file must be there

MAX_LISTED = 10  # keys of each kind that an error message names
_QUICK_GELU_SUFFIX = "-quickgelu"
_logger = logging.getLogger(__name__)

Version = tuple[int, ...]
_digests: dict[tuple[Version, torch.Size], str] = {}  # of this process's last file


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP, the identity of its weights, and how it wants its pixels normalized."""

    clip: CLIP
    sha256: str
    pixel_mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    pixel_std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD

    @property
    def image_size(self) -> int:
        """Height and width in pixels that the vision tower takes."""
        return int(self.clip.visual.image_size[0])


def check_backbone(config: BackboneConfig) -> None:
    """Checks name, image size and weights; a local file is read, nothing is downloaded.

    Raises:
        InputError: the model name, the tag or file, or the image size cannot be used.
    """
    model_config = _model_config(config)
    if config.pretrained not in (RANDOM_TAG, QUICKSTART_TAG) and not _tag_config(config):
        _clip_of_local_file(config, model_config)


def load_backbone(config: BackboneConfig, *, seed: int = 0) -> Backbone:
    """Builds the CLIP named by ``config``, loads its weights and freezes it.

    ``pretrained: random`` gives seeded random weights (tests and benchmarks).

    Raises:
        InputError: unknown name or tag, unreachable or unreadable weights, or keys that do not fit.
    """
    model_config, tag_config = _model_config(config), _tag_config(config)
    if config.pretrained == RANDOM_TAG:
        clip = _random_clip(model_config, seed)
        return Backbone(clip, weights_sha256(clip))
    if not tag_config and config.pretrained != QUICKSTART_TAG:
        path = _local_file(config)
        version = _version(path)
        clip = _clip_of_local_file(config, model_config)
        return Backbone(clip, _sha256_of(clip, version))
    path = (
        _downloaded(config, tag_config)
        if tag_config
        else QUICKSTART_FOLDER / f"{config.name}.safetensors"
    )
    version = _version(path)
    clip = build_clip(model_config, read_clip_weights(path).tensors, source=str(path))
    return Backbone(
        clip,
        _sha256_of(clip, version),
        pixel_mean=tuple(tag_config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        pixel_std=tuple(tag_config.get("std") or open_clip.OPENAI_DATASET_STD),
    )


def empty_backbone(config: BackboneConfig) -> Backbone:
    """The backbone without its weights: every tensor has its shape, but no memory.

    Raises:
        InputError: the model name or the image size cannot be used.
    """
    return Backbone(freeze(_empty_clip(_model_config(config), "backbone")), sha256="")


def build_clip(model_config: dict[str, Any], weights: StateDict, *, source: str) -> CLIP:
    """A frozen fp32 CLIP of open_clip's ``model_config`` holding ``weights`` (open_clip's naming).

    The position embedding is interpolated to the model's grid as open_clip does.

    Raises:
        InputError: the model is no plain CLIP ViT, or keys or shapes do not fit; they are listed.
    """
    clip = _empty_clip(model_config, source)
    weights = dict(weights)
    try:
        resize_pos_embed(weights, clip)
    except (RuntimeError, IndexError) as error:
        shape = tuple(weights["visual.positional_embedding"].shape)
        raise InputError(
            f"{source}: visual.positional_embedding has shape {shape}, no square grid"
        ) from error
    if "visual.conv1.bias" in weights:  # the released Vita-CLIP gave the patch embedding a bias
        clip.visual.conv1.bias = nn.Parameter(
            torch.empty(clip.visual.conv1.out_channels, device="meta")
        )
    check_fit(clip.state_dict(), weights, source)
    clip.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return freeze(clip)


def weights_sha256(clip: CLIP) -> str:
    """Hash of all weights (names, shapes, fp32 bytes): the identity that checkpoints are bound
    to.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _version(path: Path) -> Version:
    """Tells a file from others, and from what it was before it was written again."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _sha256_of(clip: CLIP, version: Version) -> str:
    """:func:`weights_sha256` of what a file gave, remembered: a process that trains one trial after
    the other need not hash the same weights for each, which takes longer than to load them.
    """
    # interpolated to the image size, so it belongs to the key
    key = (version, clip.visual.positional_embedding.shape)
    if key not in _digests:
        _digests.clear()
        _digests[key] = weights_sha256(clip)
    return _digests[key]


def _model_config(config: BackboneConfig) -> dict[str, Any]:
    model_config = read_clip_config(config)
    # the weights decide, not the spelling of the model's name
    if tag_config := _tag_config(config):
        model_config["quick_gelu"] = bool(tag_config.get("quick_gelu", False))
    return model_config


def _tag_config(config: BackboneConfig) -> dict[str, Any]:
    return dict(open_clip.get_pretrained_cfg(config.name, config.pretrained) or {})


def _downloaded(config: BackboneConfig, tag_config: dict[str, Any]) -> Path:
    try:
        return fetch_weights(tag_config)
    # huggingface_hub, urllib and OS errors alike: the download did not work
    except Exception as error:
        raise InputError(
            f"backbone.pretrained: the weights '{config.pretrained}' of {config.name} could not be "
            f"downloaded ({type(error).__name__}: {first_line(error)}); give the path of a local "
            "file instead"
        ) from error


def _clip_of_local_file(config: BackboneConfig, model_config: dict[str, Any]) -> CLIP:
    path = _local_file(config)
    weights = read_clip_weights(path)
    model_config["quick_gelu"] = _activation(
        config, bool(model_config.get("quick_gelu")), weights, path
    )
    return build_clip(model_config, weights.tensors, source=str(path))


def _activation(config: BackboneConfig, named: bool, weights: ClipWeights, path: Path) -> bool:
    """Whether to compute with QuickGELU: as the file says; a file that says nothing is read as the
    name says.
    """
    right_name = config.name.removesuffix(_QUICK_GELU_SUFFIX) + (
        _QUICK_GELU_SUFFIX if weights.quick_gelu else ""
    )
    if weights.quick_gelu is not None and weights.quick_gelu != named:
        trained, other = ("QuickGELU", "GELU") if weights.quick_gelu else ("GELU", "QuickGELU")
        _logger.warning(
            "backbone.name: '%s' computes %s, but the weights in %s were trained with %s, which is "
            "used; write '%s' to say so", config.name, other, path, trained, right_name,
        )  # fmt: skip
        return weights.quick_gelu
    if (
        weights.quick_gelu is None
        and not named
        and config.name + _QUICK_GELU_SUFFIX in open_clip.list_models()
    ):
        _logger.warning(
            "backbone.name: '%s' computes GELU, and %s does not say whether its weights were "
            "trained with it; if they are OpenAI's (QuickGELU), write '%s%s', or all results will "
            "be wrong",
            config.name, path, config.name, _QUICK_GELU_SUFFIX,
        )  # fmt: skip
    return named


def _local_file(config: BackboneConfig) -> Path:
    path = Path(os.path.expanduser(config.pretrained))  # noqa: PTH111 (any text is taken)
    if not os.path.exists(path):  # noqa: PTH110
        tags = open_clip.list_pretrained_tags_by_model(config.name)
        raise InputError(
            f"backbone.pretrained: found '{config.pretrained}', which is no file and no tag of "
            f"{config.name}{suggest(config.pretrained, tags)}; allowed tags: "
            f"{', '.join(tags) or 'none'}"
        )
    return path


def _random_clip(model_config: dict[str, Any], seed: int) -> CLIP:
    size = sum(
        parameter.numel() for parameter in _empty_clip(model_config, "backbone").parameters()
    )
    if size > MAX_RANDOM:
        raise InputError(
            f"backbone.pretrained: '{RANDOM_TAG}' is for tests, with models of at most "
            f"{MAX_RANDOM} weights, found {size}; name a tag or a file"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return freeze(CLIP(**model_config))


def _empty_clip(model_config: dict[str, Any], source: str) -> CLIP:
    with torch.device("meta"):
        clip = CLIP(**copy.deepcopy(model_config))
    _check_plain_vit(clip, source)
    return clip


def freeze(clip: CLIP) -> CLIP:
    """The CLIP as its towers are computed here, with nothing to train."""
    # the text tower asks SDPA for a causal mask
    clip.register_buffer("attn_mask", None, persistent=False)
    return clip.requires_grad_(False).eval()


def _check_plain_vit(clip: CLIP, source: str) -> None:
    """Refuses CLIPs whose towers compute something else than the ones this project implements."""
    visual = clip.visual
    reasons = {
        "the vision tower is no ViT": not isinstance(visual, VisionTransformer),
        "attentional pooling": getattr(visual, "attn_pool", None) is not None,
        f"pooling '{getattr(visual, 'pool_type', '')}'": getattr(visual, "pool_type", "tok")
        != "tok",
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
            f"{source}: this CLIP has {', '.join(found)}; allowed are plain CLIP ViTs such as "
            "ViT-B-16"
        )


def _blocks(clip: CLIP) -> list[nn.Module]:
    towers = [clip.transformer] + (
        [clip.visual.transformer] if isinstance(clip.visual, VisionTransformer) else []
    )
    return [block for tower in towers for block in tower.resblocks]


def _is_plain_block(block: nn.Module) -> bool:
    return isinstance(block, ResidualAttentionBlock) and isinstance(block.ls_1, nn.Identity)


def check_fit(wanted: StateDict, found: StateDict, source: str) -> None:
    """Raises InputError, with the misfits, unless ``found`` has the names and shapes of
    ``wanted``.
    """
    shared = sorted(wanted.keys() & found.keys())
    kinds = (
        [f"missing: {name}" for name in sorted(wanted.keys() - found.keys())],
        [f"not used: {name}" for name in sorted(found.keys() - wanted.keys())],
        [
            f"{name}: found {tuple(found[name].shape)}, needed {tuple(wanted[name].shape)}"
            for name in shared
            if wanted[name].shape != found[name].shape
        ],
    )
    lines = [line for problems in kinds for line in _shortened(problems)]
    if lines:
        number = sum(map(len, kinds))
        raise InputError(f"{source}: {number} keys do not fit this model:\n  " + "\n  ".join(lines))


def _shortened(problems: list[str]) -> list[str]:
    more = len(problems) - MAX_LISTED
    return problems if more <= 0 else [*problems[:MAX_LISTED], f"... and {more} more like these"]
