"""Files of tensors: safetensors, what ``torch.save`` wrote, and TorchScript archives. Nothing in
them is executed.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from vitaclip.errors import InputError, first_line
from vitaclip.files import write_whole
from vitaclip.model.pickle_reader import PickleError
from vitaclip.model.torch_archive import TorchArchive

_ZIP_START: Final = b"PK\x03\x04"
_PICKLE_START: Final = b"\x80"
_ALLOWED: Final = (
    "allowed are safetensors files, and what torch.save or torch.jit.save wrote of named tensors"
)
_DAMAGES: Final = (
    *(
        SafetensorError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        EOFError,
        RuntimeError,
        OverflowError,
    ),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


class TensorFile(NamedTuple):
    """The tensors of a model by name, and what a safetensors file says beside them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_tensor_file(path: Path) -> TensorFile:
    """Reads a model's tensors; ``state_dict`` or ``model`` around them and DDP's ``module.`` prefix
    come off.

    Raises:
        InputError: the file is missing, empty, damaged, or holds anything but tensors.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, needed is a file of weights")
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        file = _read(path)
    except _DAMAGES as error:
        raise InputError(f"{path}: {_ALLOWED}; reading it failed: {first_line(error)}") from error
    return file._replace(
        tensors={name.removeprefix("module."): t for name, t in file.tensors.items()}
    )


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file. Raises InputError if that is not possible there."""
    # Tensors may be views of one another, which safetensors refuses.
    own = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    write_whole(path, save(own, metadata))


def _read(path: Path) -> TensorFile:
    with path.open("rb") as file:
        start = file.read(4)
        if not start:
            raise PickleError("the file is empty")
        if start == _ZIP_START:
            return TensorFile(TorchArchive(file).weights(), {})
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
        return TensorFile(dict(load_file(path)), metadata or {})
    except SafetensorError as error:
        # A safetensors file may begin with this byte too.
        if not start.startswith(_PICKLE_START):
            raise
        raise PickleError(
            "a bare pickle, as torch before 1.6 wrote it; save it again with torch of today"
        ) from error
