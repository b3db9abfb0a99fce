"""The CLIPs that open_clip knows, by name, and their sizes: read from its files, without torch."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from vitaclip.config.model import BackboneConfig
from vitaclip.errors import InputError, suggest

QUICKSTART_FOLDER = Path(__file__).parent / "quickstart"
_NEEDED = {"embed_dim", "vision_cfg", "text_cfg"}


def num_layers(config: BackboneConfig) -> int:
    """Number of layers of the vision tower. Raises InputError as :func:`read_clip_config` does."""
    return int(read_clip_config(config)["vision_cfg"]["layers"])


def context_length(config: BackboneConfig) -> int:
    """How many tokens the text tower reads. Raises InputError as :func:`read_clip_config` does."""
    return int(read_clip_config(config)["text_cfg"].get("context_length", 77))


def read_clip_config(config: BackboneConfig) -> dict[str, Any]:
    """open_clip's config of the model, at the image size that is asked for.

    Raises:
        InputError: open_clip has no such model, it is no plain CLIP ViT, or the image size does not
            fit its patches.
    """
    model_config = _read(config.name)
    if model_config is None:
        raise InputError(
            f"backbone.name: found '{config.name}', allowed are open_clip's model names"
            f"{suggest(config.name, list(_files()))}; see open_clip.list_models()"
        )
    vision, text = model_config["vision_cfg"], model_config["text_cfg"]
    if (
        "timm_model_name" in vision
        or "hf_model_name" in text
        or isinstance(vision.get("layers"), list)
    ):
        raise InputError(
            f"backbone.name: '{config.name}' is no CLIP ViT with CLIP's own text tower; take one "
            "such as ViT-B-16"
        )
    if "multimodal_cfg" in model_config:
        raise InputError(
            f"backbone.name: '{config.name}' is a CoCa model, allowed are plain CLIP ViTs"
        )
    model_config.pop("custom_text", None)
    if config.image_size is not None:
        vision["image_size"] = config.image_size
    if vision["image_size"] % vision["patch_size"]:
        raise InputError(
            f"backbone.image_size: found {vision['image_size']}, allowed are multiples of the "
            f"patch size {vision['patch_size']} of {config.name}"
        )
    return model_config


def _read(name: str) -> dict[str, Any] | None:
    path = _files().get(name)
    if path is None:
        return _registered(name)
    content = json.loads(path.read_text())
    return content if content.keys() >= _NEEDED else None


def _registered(name: str) -> dict[str, Any] | None:
    """A model that somebody has added to open_clip: whoever did has imported it."""
    open_clip = sys.modules.get("open_clip")
    # Names with a colon would make open_clip read from a network or a folder.
    if open_clip is None or name not in open_clip.list_models():
        return None
    return dict(open_clip.get_model_config(name))


@cache
def _files() -> dict[str, Path]:
    """Name -> file, as open_clip itself finds them."""
    spec = importlib.util.find_spec("open_clip")  # does not import it: that takes seconds
    packages = spec.submodule_search_locations if spec else None
    folders = [*(Path(package, "model_configs") for package in packages or ()), QUICKSTART_FOLDER]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}
