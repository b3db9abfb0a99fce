"""What ``torch.save`` and ``torch.jit.save`` write: a zip of a pickle that describes, and every
tensor's values.

Both are read alike: the pickle is interpreted without running it, and a tensor is a view of values
whose number is checked against the file. A TorchScript archive's code is looked at only for which
attributes are weights.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, BinaryIO, Final, TypeGuard

import torch
from torch import Tensor

from vitaclip.model.pickle_reader import Made, Name, Outside, PickleError, read_pickle

# Under which training code keeps the model's tensors beside the optimizer's.
_MODEL_KEYS: Final = ("state_dict", "model", "model_state_dict")
_TENSOR_MAKERS: Final = ("_rebuild_tensor_v2", "_rebuild_tensor")
_PARAMETER_MAKERS: Final = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# A training checkpoint of CLIP ViT-L has 0.3 MB beside its tensors, OpenAI's archives have a few MB
# of code.
_MAX_PICKLE_BYTES: Final = 4 * 2**20
_MAX_EXPANDED_BYTES: Final = 64 * 2**20
_MAX_NAME: Final = 500  # characters of a tensor's name, so modules are not nested deeper than that
_MAX_DIMS: Final = 8
_MAX_SHARING: Final = 8  # tensors may be views of the same values, but not without end
_WEIGHT_LISTS: Final = re.compile(
    r"class (\w+)\(Module\):\s+__parameters__ = \[(.*?)\]\s+__buffers__ = \[(.*?)\]"
)


class TorchArchive:
    """An open archive. Its tensors are read on demand."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises PickleError, or what zipfile raises, for a file that is no such archive."""
        self._zip = zipfile.ZipFile(file)
        self._check_sizes(os.fstat(file.fileno()).st_size)
        names = self._zip.namelist()
        pickles = [name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
        if not pickles:
            raise PickleError(
                "a zip without data.pkl, so neither torch.save nor torch.jit.save wrote it"
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if self._folder + "byteorder" in names and self._read("byteorder") == b"big":
            raise PickleError(
                "its numbers are big-endian; save it again on a little-endian machine"
            )
        if self._zip.getinfo(pickles[0]).file_size > _MAX_PICKLE_BYTES:
            raise PickleError(
                f"its data.pkl is over {_MAX_PICKLE_BYTES // 2**20} MB, which no file of weights "
                "needs"
            )
        self._content = read_pickle(self._read("data.pkl"))
        self._values: dict[str, Tensor] = {}
        self._weight_lists: dict[str, dict[str, list[str]]] = {}

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the one model in it, by name. Raises PickleError if an entry is none."""
        weights = {}
        for name, described in self._entries().items():
            try:
                weights[name] = self._tensor(described)
            except (PickleError, TypeError, ValueError) as error:
                raise PickleError(f"{name[:200]} {error}") from error
        stored = sum(values.nbytes for values in self._values.values())
        if sum(tensor.nbytes for tensor in weights.values()) > _MAX_SHARING * stored:
            raise PickleError(
                f"its tensors share {stored} bytes over and over, which no model does"
            )
        return weights

    def _check_sizes(self, file_size: int) -> None:
        """Nothing may be far larger than it is in the file: neither by compression nor by sharing
        its place.
        """
        entries = self._zip.infolist()
        if sum(entry.compress_size for entry in entries) > file_size:
            raise PickleError("its entries overlap")
        compressed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if any(entry.compress_type != zipfile.ZIP_DEFLATED for entry in compressed):
            raise PickleError("it is compressed in a way that torch never uses")
        if sum(entry.file_size for entry in compressed) > _MAX_EXPANDED_BYTES:
            raise PickleError(
                f"it expands to over {_MAX_EXPANDED_BYTES // 2**20} MB, which no file of weights "
                "does"
            )

    def _entries(self) -> Mapping[str, object]:
        content = self._content
        if _is_module(content):
            return dict(self._module_entries(content, ""))
        for key in _MODEL_KEYS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict) or not content:
            raise PickleError(f"found {_kind(content)}, needed are named tensors")
        return {str(name): value for name, value in content.items()}

    def _module_entries(self, module: Made, prefix: str) -> Iterator[tuple[str, object]]:
        """Parameters and buffers of a TorchScript module and those within it."""
        if len(prefix) > _MAX_NAME:
            raise PickleError(
                f"a module's name is over {_MAX_NAME} characters long: {prefix[:40]}..."
            )
        state, weights = (
            module.state if isinstance(module.state, dict) else {},
            self._declared_weights(module.maker),
        )
        # So that a module that holds itself, or one many times over, ends the walk.
        module.state = None
        for name, value in state.items():
            if _is_module(value):
                yield from self._module_entries(value, f"{prefix}{name}.")
            elif name in weights:
                yield f"{prefix}{name}", value

    def _declared_weights(self, module: Name) -> list[str]:
        """Only the code tells a weight from a constant tensor such as an attention mask."""
        path = f"code/{module.module.replace('.', '/')}.py"
        if path not in self._weight_lists:
            source = self._read(path).decode(errors="replace")
            self._weight_lists[path] = {
                name: re.findall(r'"([^"]*)"', parameters + buffers)
                for name, parameters, buffers in _WEIGHT_LISTS.findall(source)
            }
        return self._weight_lists[path].get(module.name, [])

    def _tensor(self, described: object) -> Tensor:
        if _is_made_by(described, _PARAMETER_MAKERS):
            described = described.arguments[0]
        if not _is_made_by(described, _TENSOR_MAKERS):
            raise PickleError(f"is no tensor but {_kind(described)}")
        place, offset, size, stride = described.arguments[:4]
        values = self._storage(place)
        _check_view(len(values), offset, size, stride)
        return values.as_strided(size, stride, offset)

    def _storage(self, outside: object) -> Tensor:
        if not isinstance(outside, Outside) or not isinstance(outside.place, tuple):
            raise PickleError("has no values in this file")
        _, kind, key, _, count = outside.place
        if not isinstance(kind, Name) or kind.name not in _DTYPES:
            raise PickleError("has values of an unknown kind")
        if not isinstance(key, str) or not isinstance(count, int):
            raise PickleError("has values in no possible place")
        dtype = _DTYPES[kind.name]
        if key not in self._values:
            data = self._stored(f"data/{key}", count * dtype.itemsize)
            self._values[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self._values[key]

    def _stored(self, name: str, num_bytes: int) -> bytearray:
        found = self._zip.getinfo(self._folder + name).file_size
        if found != num_bytes:
            raise PickleError(f"needs {num_bytes} bytes, found are {found} in {name}")
        return bytearray(self._read(name))

    def _read(self, name: str) -> bytes:
        return self._zip.read(self._folder + name)


def _is_module(value: object) -> TypeGuard[Made]:
    """Whether it is a TorchScript module."""
    return isinstance(value, Made) and value.maker.module.startswith("__torch__")


def _is_made_by(value: object, makers: tuple[str, ...]) -> TypeGuard[Made]:
    return (
        isinstance(value, Made)
        and value.maker.module == "torch._utils"
        and value.maker.name in makers
    )


def _check_view(num_values: int, offset: Any, size: Any, stride: Any) -> None:
    """Raises PickleError for a view that reaches beyond its values, or repeats them into a far
    larger tensor.
    """
    numbers = (offset, *size, *stride)
    if not len(size) == len(stride) <= _MAX_DIMS or not all(
        isinstance(n, int) and n >= 0 for n in numbers
    ):
        raise PickleError("has no possible shape")
    num_elements = prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if num_elements > num_values or (num_elements and last >= num_values):
        raise PickleError(f"has shape {tuple(size)} but {num_values} values")


def _kind(value: object) -> str:
    return (
        str(value.maker)
        if isinstance(value, Made)
        else f"a {type(value).__name__.strip('_').lower()}"
    )
