"""Checkpoint files of the authors' released Vita-CLIP, into our format and back, value by value."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import BackboneConfig, DataConfig, PromptConfig, TextConfig, TrainConfig
from vitaclip.errors import InputError, first_line
from vitaclip.files import write_whole
from vitaclip.methods.build import build_model
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import check_fit, load_backbone
from vitaclip.model.clip_weights import ClipWeights, write_clip_weights
from vitaclip.model.released import StateDict, join_released, split_released
from vitaclip.model.tensor_file import read_tensor_file
from vitaclip.model.text import TOKENIZER


def import_checkpoint(
    released: Path,
    folder: Path,
    class_names: Sequence[str],
    backbone: BackboneConfig,
    *,
    position: str = "end",
    extract_backbone: Path | None = None,
) -> TrainConfig:
    """Writes our checkpoint ``folder`` from a released file; returns the config it was read as.

    A released file holds a whole CLIP. It must be the one that ``backbone`` names, or is written to
    the file ``extract_backbone``, which then is the checkpoint's backbone.

    Args:
        released: the authors' file.
        folder: the checkpoint to write.
        class_names: those that the file was trained on, in its order.
        backbone: the CLIP that the file holds.
        position: where the class name stands among the context vectors.
        extract_backbone: where to write the file's CLIP; None: it is not written.

    Raises:
        InputError: the file is no released checkpoint, its CLIP is another one, or the class names
            are not its own.
    """
    entries = _model_entries(released)
    try:
        frozen, learned = split_released(entries)
        config = _config_of(learned, backbone, position)
    except InputError as error:
        raise InputError(f"{released}: {error}") from error
    except (LookupError, TypeError, RuntimeError, ValidationError) as error:
        raise InputError(
            f"{released}: its tensors are not those of a released Vita-CLIP: {first_line(error)}"
        ) from error
    if extract_backbone is not None:
        write_clip_weights(extract_backbone, ClipWeights(frozen, quick_gelu=True))
        backbone = backbone.model_copy(update={"pretrained": str(extract_backbone)})
    _check_same_backbone(frozen, backbone, released)
    config = config.model_copy(update={"backbone": backbone})
    _check_num_classes(learned, class_names, released)
    model = build_model(config, class_names)
    assert isinstance(model, VitaCLIP), "the config names no other method"
    check_fit(model.learned_state(), learned, str(released))
    model.load_state_dict(learned, strict=False)
    _check_class_names(model, entries, released)
    save_checkpoint(folder, model, config, Progress())
    return config


def export_checkpoint(folder: Path, released: Path) -> None:
    """Writes a checkpoint in the released format: ``{"model": ..., "next_step": ...}`` with
    ``module.`` prefixes.

    Raises:
        CheckpointError: the folder is no checkpoint of ours.
        InputError: it uses what the released format has no place for (layer ranges, deep text
            prompts, no context), or ``released`` cannot be written.
    """
    model, config = load_model(folder)
    if not isinstance(model, VitaCLIP):
        raise InputError(
            f"{folder}: the released format is that of vita_clip, not {config.method.name}"
        )
    if config.prompts.depth not in (None, len(model.vision_prompts.layers)) or any(
        (config.prompts.global_layers, config.prompts.local_layers, config.prompts.summary_layers)
    ):
        raise InputError(
            f"{folder}: prompts of some layers only have no place in the released format"
        )
    if model.text_prompts is None or model.vision_prompts.time_embedding is None:
        raise InputError(
            f"{folder}: the released format always has text context and a time embedding"
        )
    entries = join_released(model.clip.state_dict(), model.learned_state()) | _derived_embeddings(
        model
    )
    content = io.BytesIO()
    torch.save(
        {
            "model": {f"module.{name}": t.cpu().clone() for name, t in entries.items()},
            "next_step": 0,
        },
        content,
    )
    write_whole(released, content.getvalue())


def _model_entries(path: Path) -> StateDict:
    """The ``model`` part of a released file, without ``module.``; a bare state dict is taken
    too.
    """
    return {name: tensor.float() for name, tensor in read_tensor_file(path).tensors.items()}


def _check_same_backbone(frozen: StateDict, backbone: BackboneConfig, released: Path) -> None:
    ours = load_backbone(backbone).clip.state_dict()
    differing = [
        name
        for name, tensor in frozen.items()
        if name != "logit_scale" and (name not in ours or not torch.equal(ours[name], tensor))
    ]
    if differing:
        raise InputError(
            f"{released}: {len(differing)} frozen tensors differ from "
            f"{backbone.name}/{backbone.pretrained} (first: {differing[0]}); name the CLIP it was "
            "trained on, or keep its own with --extract-backbone FILE"
        )


def _config_of(learned: StateDict, backbone: BackboneConfig, position: str) -> TrainConfig:
    """The switches that the tensors' presence and shapes tell."""
    context = learned.get("text_prompts.context")
    global_prompts = learned.get("vision_prompts.layers.0.global_prompts")
    prompts = PromptConfig(
        num_global=0 if global_prompts is None else len(global_prompts),
        local="vision_prompts.layers.0.local_prompts" in learned,
        summary="vision_prompts.layers.0.summary_norm.weight" in learned,
        cls_proj="released",
    )
    text = TextConfig.model_validate(
        {
            "num_context": 0 if context is None else context.shape[-2],
            "class_specific": context is not None and context.ndim == 3,
            "position": position,
        }
    )
    num_frames = len(learned["vision_prompts.time_embedding"])
    return TrainConfig(
        backbone=backbone, prompts=prompts, text=text, data=DataConfig(num_frames=num_frames)
    )


def _check_num_classes(learned: StateDict, class_names: Sequence[str], released: Path) -> None:
    context = learned.get("text_prompts.context")
    if context is not None and context.ndim == 3 and len(context) != len(class_names):
        raise InputError(
            f"{released}: has contexts of {len(context)} classes, found {len(class_names)} class "
            "names"
        )


def _check_class_names(model: VitaCLIP, entries: StateDict, released: Path) -> None:
    """The file's copies of the names' token embeddings tell whether these are its class names, in
    its order.
    """
    for name, tensor in _derived_embeddings(model).items():
        stored = entries.get(name)
        if stored is None:
            continue
        if stored.shape != tensor.shape:
            raise InputError(
                f"{released}: found {len(tensor)} class names, which need a {name} of shape "
                f"{tuple(tensor.shape)}, it has {tuple(stored.shape)}; give its class names in its "
                "order"
            )
        for index, class_name in enumerate(model.class_names):
            if not torch.equal(stored[index], tensor[index]):
                raise InputError(
                    f"{released}: class {index} is not '{class_name}'; give its class names in its "
                    "order"
                )


def _derived_embeddings(model: VitaCLIP) -> StateDict:
    """``prompt_learner.token_prefix`` (SOT) and ``token_suffix`` (name, full stop, EOT, padding) of
    each class.
    """
    if model.text_prompts is None:
        return {}
    tokens = torch.zeros(len(model.class_names), model.clip.context_length, dtype=torch.long)
    num_context = model.text_prompts.num_context
    for index, (name, tail) in enumerate(model.class_tokens):
        words = torch.tensor([*name, *tail])
        tokens[index, 1 + num_context : 1 + num_context + len(words)] = words
    tokens[:, 0] = TOKENIZER.sot_token_id
    embeddings: Tensor = model.clip.token_embedding(tokens)
    return {
        "prompt_learner.token_prefix": embeddings[:, :1],
        "prompt_learner.token_suffix": embeddings[:, 1 + num_context :],
    }
