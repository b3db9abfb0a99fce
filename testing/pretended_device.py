"""An accelerator that is not there: tensors on the CPU that say they live on ``cuda:0``.

Whatever mixes them with tensors on the CPU raises, as it does on a GPU. So the whole of a training,
an evaluation or a prediction shows where a tensor was left behind, and how often the host waits for
the device. Numbers are the CPU's own. What needs a real device is not shown: its kernels, its
streams, its memory.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from testing.paths import ROOT

DEVICE = torch.device("cuda", 0)

_CPU = torch.device("cpu")
# Their result is a number of the host, which waits for the device.
_WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim",
}  # fmt: skip
_COPIES = {"aten::copy_", "aten::_to_copy"}
_FACTORIES = {"zeros", "ones", "empty", "full", "scalar_tensor", "empty_strided"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class DeviceMismatchError(RuntimeError):
    """Tensors of the pretended device and of the CPU met in one operation."""


@dataclass
class Traffic:
    """What went on between host and device, by the place in the product that caused it."""

    waits: Counter[str] = field(default_factory=Counter)
    to_device: Counter[str] = field(default_factory=Counter)


class DeviceTensor(Tensor):
    """Wraps a CPU tensor, and says that it lives on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> DeviceTensor:
        wrapper: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=_CPU,
            requires_grad=requires_grad,
        )
        wrapper.held = held
        return wrapper

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        method = _METHODS.get(func)
        if method is not None and args and isinstance(args[0], DeviceTensor):
            return method(args[0], *args[1:], **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sees operations whose tensors are all on the CPU, such as a copy to the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


_traffic = Traffic()


@contextmanager
def pretended_device() -> Iterator[Traffic]:
    """Inside, ``torch.cuda.is_available()`` says yes, and the product computes on the device."""
    _traffic.waits.clear()
    _traffic.to_device.clear()
    allows_tf32 = torch.backends.cudnn.allow_tf32
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for target, name, value in _replacements():
            stack.enter_context(patch.object(target, name, value))
        stack.callback(setattr, torch.backends.cudnn, "allow_tf32", allows_tf32)
        # ``torch.tensor(..., device=...)`` then goes the way of ``.to``.
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.enter_context(_Mode())
        yield _traffic


def _replacements() -> list[tuple[Any, str, Any]]:
    """What asks PyTorch for a driver, or knows no wrapped tensors."""
    from torch.cuda.amp import common

    class Autocast(torch.autocast):
        """The CPU's, whatever is asked for."""

        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu", *args, **kwargs)

    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "is_initialized", lambda: True),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "get_device_name", lambda *_: "a pretended device"),
        (torch.cuda, "synchronize", lambda *_: None),
        (torch.cuda, "reset_peak_memory_stats", lambda *_: None),
        (torch.cuda, "memory_allocated", lambda *_: 0),
        (torch.cuda, "max_memory_allocated", lambda *_: 0),
        (torch.cuda, "_lazy_init", lambda: None),
        (common, "amp_definitely_not_available", lambda: False),
        (torch, "autocast", Autocast),
        # Wrapped tensors know no inference mode, which functions of the product are decorated with.
        (torch.inference_mode, "__enter__", torch.no_grad.__enter__),
        (torch.inference_mode, "__exit__", torch.no_grad.__exit__),
        (torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None),
        # So that the DataLoader pins nothing, for which it would ask a driver.
        (torch.accelerator, "is_available", lambda: False),
    ]


def _to(tensor: DeviceTensor, *args: Any, **kwargs: Any) -> Tensor:
    device, dtype, _, _ = torch._C._nn._parse_to(*args, **_without_copy(kwargs))
    if device is not None and device.type == "cpu" and not _is_grouped_by_optimizer():
        return _to_cpu(tensor).to(dtype=dtype or tensor.dtype)
    if dtype is None or dtype == tensor.dtype:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():
        converted: Tensor = torch.ops.aten._to_copy(tensor, dtype=dtype)
        return converted


def _is_grouped_by_optimizer() -> bool:
    """Optimizers and gradient clipping group tensors by the device that PyTorch's core sees: the
    wrappers' CPU.
    """
    callers = (frame.filename for frame in reversed(traceback.extract_stack(limit=6)))
    return any("/torch/optim/" in caller or "/torch/nn/utils/" in caller for caller in callers)


def _without_copy(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != "copy"}


def _to_cpu(tensor: DeviceTensor, *_: Any, **__: Any) -> Tensor:
    _traffic.waits[f"copy to the CPU @ {_place()}"] += 1
    return tensor.held.detach().clone()


def _waiting(name: str) -> Any:
    def method(tensor: DeviceTensor, *args: Any, **kwargs: Any) -> Any:
        _traffic.waits[f"{name} @ {_place()}"] += 1
        return getattr(tensor.held, name)(*args, **kwargs)

    return method


def _no_numpy(tensor: DeviceTensor, *_: Any, **__: Any) -> Any:
    raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")


_METHODS = {
    Tensor.to: _to,
    Tensor.cpu: _to_cpu,
    Tensor.cuda: lambda tensor, *_, **__: tensor,
    Tensor.numpy: _no_numpy,
    Tensor.__array__: _no_numpy,
    **{
        getattr(Tensor, name): _waiting(name)
        for name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__")
    },
}


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation below autograd, on the tensors that are held."""
    name = func._schema.name
    leaves = pytree.tree_leaves((args, kwargs))
    on_device = [leaf for leaf in leaves if isinstance(leaf, DeviceTensor)]
    on_cpu = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    on_cpu = [tensor for tensor in on_cpu if not isinstance(tensor, DeviceTensor)]
    if on_device:
        _check_together(name, args, on_cpu)
        if name in _WAITS:
            _traffic.waits[f"{name} @ {_place()}"] += 1
    asked = kwargs.get("device")
    goes_to_device = asked is not None and torch.device(asked).type == "cuda"
    is_copy_here = name == "aten::copy_" and isinstance(args[0], DeviceTensor)
    if on_cpu and (goes_to_device or is_copy_here) and on_cpu[0].dim():
        _traffic.to_device[f"{tuple(on_cpu[0].shape)} @ {_place()}"] += 1
    result = func(*pytree.tree_map(_held, args), **pytree.tree_map(_held, kwargs))
    stays_here = bool(on_device) if name != "aten::copy_" else is_copy_here
    if asked is not None:
        stays_here = goes_to_device or _is_autograds_own(name)
    if not stays_here:
        return result
    # An operation in place returns the tensor that it was given.
    known = {id(tensor.held): tensor for tensor in on_device}
    return pytree.tree_map(lambda leaf: _wrapped(leaf, known), result)


def _check_together(name: str, args: tuple[Any, ...], on_cpu: list[Tensor]) -> None:
    """A number on the CPU may meet the device's tensors, and so may an index, which is copied."""
    if name in _COPIES or not any(tensor.dim() for tensor in on_cpu):
        return
    if name in _INDEXING and isinstance(args[0], DeviceTensor):
        _traffic.to_device[f"index @ {_place()}"] += 1
        return
    shapes = [tuple(tensor.shape) for tensor in on_cpu]
    raise DeviceMismatchError(
        f"{name} @ {_place()}: expected all tensors on cuda:0, found {shapes} on the CPU"
    )


def _is_autograds_own(name: str) -> bool:
    """Autograd makes zeros and converts where a gradient is. That it takes from the wrapper, which
    says "the CPU" to it.
    """
    if torch._C._current_graph_task_id() == -1:
        return False
    return (
        name == "aten::_to_copy" or name.removeprefix("aten::").removeprefix("new_") in _FACTORIES
    )


def _held(leaf: Any) -> Any:
    if isinstance(leaf, DeviceTensor):
        return leaf.held
    return _CPU if isinstance(leaf, torch.device) and leaf.type == "cuda" else leaf


def _wrapped(leaf: Any, known: dict[int, DeviceTensor]) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, DeviceTensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else DeviceTensor(leaf)


def _place() -> str:
    """The innermost line of the product."""
    for frame in reversed(traceback.extract_stack()):
        for package in ("vitaclip", "orchestrator"):
            if frame.filename.startswith(f"{ROOT / package}/"):
                return f"{Path(frame.filename).relative_to(ROOT)}:{frame.name}"
    return "outside the product"
