"""A checkpoint: a folder of a few megabytes that resumes a training or scores a model.

``learned.safetensors`` (everything but the backbone), ``optimizer.safetensors`` (if it can resume a training) and
``checkpoint.json`` (schema version, config, class names, backbone hash, progress), written last. No pickles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitaclip.config import Config, TrainConfig
from vitaclip.errors import CheckpointError
from vitaclip.model.vita_clip import VitaCLIP, build_model

SCHEMA_VERSION: Final = 1
LEARNED_FILE, OPTIMIZER_FILE, INFO_FILE = "learned.safetensors", "optimizer.safetensors", "checkpoint.json"

EpochMetrics = dict[str, float]


class CurvePoint(NamedTuple):
    """One optimiser step of the training curve."""

    epoch: int  # in which it was made, counted from 1
    step: int  # over all epochs, counted from 1
    loss: float  # before the step, of its batch
    lr: float


class Progress(Config):
    """How far a training has come: enough to go on at the very next optimiser step."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimiser steps done in the epoch under way
    loss_sum: float = 0.0  # of those steps
    num_broken: int = 0  # broken clips met in the epoch under way
    elapsed_s: float = 0.0  # in the epoch under way, until it was interrupted
    history: tuple[EpochMetrics, ...] = ()  # one entry for each epoch done
    curve: tuple[CurvePoint, ...] = ()  # about fifty steps of each epoch, of the one under way too
    grad_scaler: dict[str, Any] | None = None  # fp16 only
    micro_batch_size: int | None = None  # instead of the config's, after memory ran out


class CheckpointInfo(Config):
    """The content of ``checkpoint.json``."""

    schema_version: Literal[1] = SCHEMA_VERSION
    config: TrainConfig
    class_names: tuple[str, ...]
    backbone_sha256: str
    progress: Progress = Progress()


def save_checkpoint(
    folder: Path,
    model: VitaCLIP,
    config: TrainConfig,
    progress: Progress,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Writes a checkpoint into ``folder``; without an optimizer it can be scored but not resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_contiguous(model.learned_state()), folder / LEARNED_FILE)
    if optimizer is not None:
        save_file(_contiguous(_optimizer_tensors(model, optimizer)), folder / OPTIMIZER_FILE)
    info = CheckpointInfo(
        config=config,
        class_names=model.class_names,
        backbone_sha256=model.backbone_sha256,
        progress=progress,
    )
    _write_info(folder, info)


def adopt_checkpoint(folder: Path, config: TrainConfig) -> None:
    """Makes another training's checkpoint the start of this one: its weights and place, but an own history.

    The two configs may differ in the optimizer's settings; the model must be the same.
    """
    info = read_info(folder)
    progress = info.progress.model_copy(update={"history": (), "curve": ()})
    _write_info(folder, info.model_copy(update={"config": config, "progress": progress}))


def _write_info(folder: Path, info: CheckpointInfo) -> None:
    (folder / INFO_FILE).write_text(info.model_dump_json(indent=1))


def read_info(folder: Path) -> CheckpointInfo:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: it is missing, incomplete or of another schema version.
    """
    path = folder / INFO_FILE
    try:
        content = json.loads(path.read_text())
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{path}: found schema version {version}, this version reads {SCHEMA_VERSION}"
            )
        return CheckpointInfo.model_validate(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{folder}: no {INFO_FILE} in it, so it is no (whole) checkpoint") from error
    except (json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {str(error).splitlines()[0]}"
        ) from error


def read_history(folder: Path) -> list[EpochMetrics]:
    """The metrics of every epoch that the checkpoint's training has done."""
    return list(read_info(folder).progress.history)


def load_model(folder: Path) -> tuple[VitaCLIP, TrainConfig]:
    """The trained model of a checkpoint and its config, on the CPU.

    Raises:
        CheckpointError: the checkpoint is incomplete, or its backbone is not the one that its config names now.
    """
    info = read_info(folder)
    model = build_model(info.config, info.class_names)
    load_learned(model, folder)
    return model, info.config


def load_learned(model: VitaCLIP, folder: Path) -> None:
    """Loads the learned tensors into a model that was built from the same config.

    Raises:
        CheckpointError: the backbone's hash differs (both are named), or keys or shapes do not fit.
    """
    info = read_info(folder)
    if info.backbone_sha256 != model.backbone_sha256:
        raise CheckpointError(
            f"{folder}: was trained on the backbone with hash {info.backbone_sha256}, "
            f"found {model.backbone_sha256} as {info.config.backbone.name}/{info.config.backbone.pretrained}; "
            "load the backbone it was trained on"
        )
    learned = _read(folder / LEARNED_FILE)
    wanted = model.learned_state()
    misfits = sorted(wanted.keys() ^ learned.keys())
    misfits += [n for n in wanted.keys() & learned.keys() if wanted[n].shape != learned[n].shape]
    if misfits:
        raise CheckpointError(
            f"{folder / LEARNED_FILE}: tensors that do not fit its config: {', '.join(misfits)}"
        )
    model.load_state_dict(learned, strict=False)


def load_optimizer(model: VitaCLIP, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restores AdamW's state, matched by parameter name.

    Raises:
        CheckpointError: the checkpoint holds none, or one of other parameters.
    """
    tensors = _read(folder / OPTIMIZER_FILE)
    state: dict[int, dict[str, Tensor]] = {}
    for index, name in enumerate(model.trainable()):
        entries = {key.partition(":")[0]: t for key, t in tensors.items() if key.partition(":")[2] == name}
        if entries:
            state[index] = entries
    if sum(len(entries) for entries in state.values()) != len(tensors):
        raise CheckpointError(f"{folder / OPTIMIZER_FILE}: holds parameters that its config does not train")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _optimizer_tensors(model: VitaCLIP, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts as ``<entry>:<parameter name>``; parameters never stepped have none."""
    return {
        f"{entry}:{name}": tensor
        for name, parameter in model.trainable().items()
        for entry, tensor in optimizer.state.get(parameter, {}).items()
    }


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (FileNotFoundError, SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
