"""A checkpoint: a folder of a few megabytes that resumes a training or scores a model.

``learned-<hash>.safetensors`` (everything but the backbone), ``optimizer-<hash>.safetensors`` (if
it can resume a training) and ``checkpoint.json`` (schema version, config, class names, backbone
hash, progress), written last. It names its tensor files and their SHA-256, so whatever interrupts a
save leaves the checkpoint that was there before. No pickles.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from vitaclip.checkpoint_info import (
    INFO_FILE,
    CheckpointInfo,
    Progress,
    TensorFile,
    TensorKind,
    read_info,
    write_info,
)
from vitaclip.class_names import check_class_names
from vitaclip.config import TrainConfig
from vitaclip.errors import CheckpointError, first_line
from vitaclip.methods.build import build_model, empty_model
from vitaclip.methods.video_model import Shapes, VideoModel, shapes_of

_WEIGHTS = "weights"  # beside AdamW's own entries


def save_checkpoint(
    folder: Path,
    model: VideoModel,
    config: TrainConfig,
    progress: Progress,
    optimizer: torch.optim.Optimizer | None = None,
    training_weights: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Writes a checkpoint into ``folder``; without an optimizer it can be scored but not resumed.

    Args:
        folder: made if it is not there. A checkpoint in it stays whole until the new one is.
        model: whose learned tensors are saved.
        config: of its training.
        progress: how far the training has come.
        optimizer: whose state is saved.
        training_weights: those that the training goes on from, where the model has others (their
            average).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"learned": _write_tensors(folder, "learned", model.learned_state())}
    if optimizer is not None:
        tensors["optimizer"] = _write_tensors(
            folder, "optimizer", _optimizer_tensors(model, optimizer, training_weights)
        )
    info = CheckpointInfo(
        config=config,
        class_names=model.class_names,
        backbone_sha256=model.backbone_sha256,
        progress=progress,
        tensors=tensors,
    )
    write_info(folder, info)
    _delete_others(folder, info)


def drop_optimizer(folder: Path) -> None:
    """Leaves a checkpoint that is there to predict, not to resume."""
    info = read_info(folder)
    kept = {kind: file for kind, file in info.tensors.items() if kind != "optimizer"}
    info = info.model_copy(update={"tensors": kept})
    write_info(folder, info)
    _delete_others(folder, info)


def adopt_checkpoint(folder: Path, config: TrainConfig) -> None:
    """Makes another training's checkpoint the start of this one: its weights and place, but an own
    history.

    The two configs may differ in the optimizer's settings; the model must be the same. If the other
    training has done all of this one's epochs, ``fit`` only validates it.
    """
    info = read_info(folder)
    progress = info.progress.model_copy(update={"history": (), "curve": ()})
    write_info(folder, info.model_copy(update={"config": config, "progress": progress}))


def _write_tensors(folder: Path, kind: TensorKind, tensors: dict[str, Tensor]) -> TensorFile:
    """Writes tensors under a name that no other checkpoint's tensors have."""
    content = save(_contiguous(tensors))
    sha256 = hashlib.sha256(content).hexdigest()
    file = TensorFile(name=f"{kind}-{sha256[:16]}.safetensors", sha256=sha256)
    with (folder / file.name).open("wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    return file


def _delete_others(folder: Path, info: CheckpointInfo) -> None:
    """Deletes tensors of the checkpoints that this one replaced."""
    belonging = {file.name for file in info.tensors.values()}
    for path in folder.glob("*.safetensors"):
        if path.name not in belonging and path.name.startswith(("learned-", "optimizer-")):
            path.unlink(missing_ok=True)


def load_model(folder: Path) -> tuple[VideoModel, TrainConfig]:
    """The trained model of a checkpoint, on the CPU, and what of its config decides the model.

    Raises:
        CheckpointError: the checkpoint is incomplete, or its backbone is not the one that its
            config names now.
        InputError: the backbone cannot be loaded, or two class names are the same.
    """
    info = read_info(folder)
    config = info.config.of_model()
    check_class_names(
        str(folder / INFO_FILE), {f"name {n}": name for n, name in enumerate(info.class_names, 1)}
    )
    # Before anything is built: the file's size, not what the config asks for, says how much memory
    # may be needed.
    wanted = shapes_of(empty_model(config, info.class_names).learned_state())
    _check_shapes(folder, info, wanted, _stored_shapes(folder, info))
    model = build_model(config, info.class_names)
    load_learned(model, folder)
    return model, config


def _stored_shapes(folder: Path, info: CheckpointInfo) -> Shapes:
    """The shapes of the learned tensors, from the head of their file."""
    path = folder / _tensor_file(folder, info, "learned").name
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}") from error


def _check_shapes(folder: Path, info: CheckpointInfo, wanted: Shapes, found: Shapes) -> None:
    misfits = sorted(wanted.keys() ^ found.keys())
    misfits += [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    if misfits:
        raise CheckpointError(
            f"{folder / info.tensors['learned'].name}: {len(misfits)} tensors that do not fit its "
            f"config: {', '.join(misfits[:5])}"
        )


def load_learned(model: VideoModel, folder: Path) -> None:
    """Loads the learned tensors into a model that was built from the same config.

    Raises:
        CheckpointError: the backbone's hash differs (both are named), or keys or shapes do not fit.
    """
    info = read_info(folder)
    if info.backbone_sha256 != model.backbone_sha256:
        raise CheckpointError(
            f"{folder}: was trained on the backbone with hash {info.backbone_sha256}, "
            f"found {model.backbone_sha256} as "
            f"{info.config.backbone.name}/{info.config.backbone.pretrained}; "
            "load the backbone it was trained on"
        )
    learned = _read_tensors(folder, info, "learned")
    _check_shapes(folder, info, shapes_of(model.learned_state()), shapes_of(learned))
    model.load_state_dict(learned, strict=False)


def load_optimizer(model: VideoModel, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restores AdamW's state, matched by parameter name, and the weights that the training goes on
    from, where the checkpoint has them beside an average.

    Raises:
        CheckpointError: the checkpoint holds none, or one of other parameters.
    """
    info = read_info(folder)
    tensors = _read_tensors(folder, info, "optimizer")
    state: dict[int, dict[str, Tensor]] = {}
    num_used = 0
    for index, (name, parameter) in enumerate(model.trainable().items()):
        entries = {
            key.partition(":")[0]: tensor
            for key, tensor in tensors.items()
            if key.partition(":")[2] == name and tensor.shape in ((), parameter.shape)
        }
        num_used += len(entries)
        if (weights := entries.pop(_WEIGHTS, None)) is not None:
            parameter.data.copy_(weights)
        if entries:
            state[index] = entries
    if num_used != len(tensors):
        raise CheckpointError(
            f"{folder / info.tensors['optimizer'].name}: holds parameters that its config does not "
            "train, or in other shapes"
        )
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _optimizer_tensors(
    model: VideoModel, optimizer: torch.optim.Optimizer, training_weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """AdamW's moments and step counts as ``<entry>:<parameter name>``, and the weights that the
    training goes on from; parameters never stepped have none.
    """
    state = {
        f"{entry}:{name}": tensor
        for name, parameter in model.trainable().items()
        for entry, tensor in optimizer.state.get(parameter, {}).items()
    }
    return state | {f"{_WEIGHTS}:{name}": tensor for name, tensor in training_weights.items()}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read_tensors(folder: Path, info: CheckpointInfo, kind: TensorKind) -> dict[str, Tensor]:
    """The tensors that belong to a checkpoint. Raises CheckpointError if others stand in their
    place.
    """
    file = _tensor_file(folder, info, kind)
    path = folder / file.name
    try:
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise CheckpointError(
                f"{path}: found SHA-256 {found[:16]}..., {INFO_FILE} says {file.sha256[:16]}...: "
                "these tensors do not belong to this checkpoint, or are damaged; copy the whole "
                "folder again, or use another checkpoint"
            )
        return dict(load(content))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _tensor_file(folder: Path, info: CheckpointInfo, kind: TensorKind) -> TensorFile:
    file = info.tensors.get(kind)
    if file is None:
        raise CheckpointError(
            f"{folder / INFO_FILE}: names no {kind} tensors; use a checkpoint that has them"
        )
    return file
