"""``checkpoint.json``: what a checkpoint says of itself. Nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from vitaclip.class_names import MAX_CLASSES, MAX_NAME_LENGTH
from vitaclip.config import Config, TrainConfig, describe
from vitaclip.errors import CheckpointError
from vitaclip.files import write_whole

SCHEMA_VERSION: Final = 1
INFO_FILE: Final = "checkpoint.json"
# The longest training writes less.
MAX_INFO_BYTES: Final = 16 * 2**20
MAX_INFO_VALUES: Final = 1_000_000
TensorKind = Literal["learned", "optimizer"]

EpochMetrics = dict[str, float]


def seconds_of(metrics: Mapping[str, float]) -> float:
    """How long an epoch took, with its validation."""
    return metrics.get("time/epoch_s", 0.0) + metrics.get("time/validation_s", 0.0)


def _of_an_epoch(metrics: EpochMetrics) -> EpochMetrics:
    epoch = metrics.get("epoch", -1)
    if epoch < 0 or epoch % 1:
        raise ValueError("names no epoch; each entry of a history has the number of one, 0 or more")
    return metrics


# One entry for each epoch done.
History = tuple[Annotated[EpochMetrics, AfterValidator(_of_an_epoch)], ...]


class CurvePoint(NamedTuple):
    """One optimizer step of the training curve."""

    epoch: int  # in which it was made, counted from 1
    step: int  # over all epochs, counted from 1
    loss: float  # before the step, of its batch
    lr: float


class Progress(Config):
    """How far a training has come: enough to go on at the very next optimizer step."""

    epoch: int = 0  # epochs done
    step: int = 0  # optimizer steps done in the epoch under way
    loss_sum: float = 0.0  # of those steps
    # positions of broken clips that any worker met in the epoch under way
    broken: tuple[int, ...] = ()
    elapsed_s: float = 0.0  # in the epoch under way, until it was interrupted
    history: History = ()
    # about fifty steps of each epoch, of the one under way too
    curve: tuple[CurvePoint, ...] = ()
    grad_scaler: dict[str, int | float] | None = None  # fp16 only
    micro_batch_size: int | None = None  # instead of the config's, after memory ran out


class TensorFile(Config):
    """One of a checkpoint's tensor files."""

    name: str = Field(pattern=r"^[a-z0-9-]+\.safetensors$")
    sha256: str


def _known_version(found: object) -> object:
    if found != SCHEMA_VERSION:
        raise ValueError(f"found schema version {found}, this version reads {SCHEMA_VERSION}")
    return found


class CheckpointInfo(Config):
    """The content of ``checkpoint.json``."""

    schema_version: Annotated[Literal[1], BeforeValidator(_known_version)] = SCHEMA_VERSION
    config: TrainConfig
    class_names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)], ...],
        Field(min_length=1, max_length=MAX_CLASSES),
    ]
    backbone_sha256: str
    progress: Progress = Progress()
    tensors: dict[TensorKind, TensorFile] = Field({})


def write_info(folder: Path, info: CheckpointInfo) -> None:
    """Writes ``checkpoint.json`` into a folder: the old one stays whole until the new one is."""
    write_whole(folder / INFO_FILE, info.model_dump_json(indent=1).encode())


def read_info(folder: Path) -> CheckpointInfo:
    """What a checkpoint says of itself.

    Raises:
        CheckpointError: it is missing, incomplete or of another schema version.
    """
    path = folder / INFO_FILE
    try:
        info = CheckpointInfo.model_validate_json(_read_info_file(path))
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {describe(error)}"
        ) from error
    if "schema_version" not in info.model_fields_set:
        raise CheckpointError(
            f"{path}: names no schema version, this version reads {SCHEMA_VERSION}"
        )
    return info


def _read_info_file(path: Path) -> bytes:
    # os.path takes any text as a path
    if not os.path.exists(path):  # noqa: PTH110
        raise CheckpointError(
            f"{path.parent}: no {INFO_FILE} in it, so it is no (whole) checkpoint"
        )
    if not path.is_file() or path.stat().st_size > MAX_INFO_BYTES:
        raise CheckpointError(
            f"{path}: is no file of at most {MAX_INFO_BYTES // 2**20} MB, so no checkpoint's"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if content.count(b",") > MAX_INFO_VALUES:
        raise CheckpointError(
            f"{path}: holds over {MAX_INFO_VALUES} values, so it is no checkpoint's"
        )
    return content


def read_history(folder: Path) -> list[EpochMetrics]:
    """The metrics of every epoch that the checkpoint's training has done."""
    return list(read_info(folder).progress.history)
