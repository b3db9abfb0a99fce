"""Every kernel of a training step, recorded on tensors that have a shape and no memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.roofline.devices import Device
from vitaclip.methods.video_model import VideoModel
from vitaclip.model import compilation
from vitaclip.optimizer import accumulate_gradients

Kind = Literal["matrix product", "attention", "LayerNorm", "element-wise", "cast", "copy"]
KINDS: tuple[Kind, ...] = (
    "matrix product", "attention", "LayerNorm", "element-wise", "cast", "copy",
)  # fmt: skip
FUSABLE: frozenset[Kind] = frozenset({"LayerNorm", "element-wise", "cast", "copy"})

_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}
_COPIES = {
    "cat", "clone", "copy_", "stack", "index", "index_select", "embedding", "repeat_interleave",
    "slice_backward", "select_backward", "constant_pad_nd", "repeat", "fill_", "zero_",
}  # fmt: skip
# They give another view of the same memory, or ask for memory: nothing runs.
_FREE = {
    "view", "_unsafe_view", "transpose", "t", "expand", "slice", "select", "split", "detach",
    "split_with_sizes", "chunk", "unsqueeze", "squeeze", "alias", "permute", "as_strided",
    "lift_fresh", "unfold", "_reshape_alias", "unbind", "empty", "empty_like", "empty_strided",
    "new_empty", "narrow", "unflatten", "new_empty_strided",
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """What one kernel, or several fused into one, computes and moves."""

    phase: str
    name: str
    kind: Kind
    shape: tuple[int, ...]  # of its first tensor
    dtype: torch.dtype  # that it computes in
    flops: int = 0
    # bytes, by the memory they lie in
    reads: dict[int, int] = field(default_factory=dict)
    writes: dict[int, int] = field(default_factory=dict)
    # kernels of one layer's call can be fused; None: this one is in no layer
    layer: int | None = None

    @property
    def num_bytes(self) -> int:
        """Read and written."""
        return sum(self.reads.values()) + sum(self.writes.values())

    def seconds(self, device: Device) -> float:
        """At the device's limit."""
        moving = max(self.num_bytes / device.bytes_per_s, device.kernel_s)
        if self.kind == "matrix product":
            return max(moving, device.matmul_s(self.flops, self.dtype))
        if self.kind == "attention":
            is_backward = "backward" in self.name
            return max(moving, device.attention_s(self.flops, self.dtype, is_backward=is_backward))
        return moving


@dataclass(frozen=True)
class Step:
    """The kernels of a training step in their order, and what its backward pass keeps in
    memory.
    """

    kernels: list[Kernel]
    kept_bytes: int


def record_step(
    make_model: Callable[[], VideoModel], *, num_clips: int, micro_batch_size: int | None
) -> Step:
    """Records the gradients of a batch.

    Args:
        make_model: makes the model; called where tensors take no memory.
        num_clips: in the batch.
        micro_batch_size: how many of them pass through the model at once; None: all.
    """
    with FakeTensorMode():
        model = make_model()
        size = model.image_size
        video = torch.empty(num_clips, 3, model.num_frames, size, size, dtype=torch.uint8)
        labels = torch.zeros(num_clips, dtype=torch.int64)
        recorder = _Recorder(model)
        marked = patch.object(compilation, "compiled", recorder.marked)
        with recorder, marked, saved_tensors_hooks(recorder.keep, lambda kept: kept):
            accumulate_gradients(model, video, labels, micro_batch_size=micro_batch_size)
        return Step(recorder.kernels(), recorder.kept_bytes())


class _Recorder(TorchDispatchMode):
    """Takes note of each operation that runs a kernel."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self._found: list[tuple[int, Kernel]] = []  # with the number of its backward pass
        self._storages: list[torch.UntypedStorage] = []  # while one lives, its number is its own
        self._tower = "head"
        self._layer: int | None = None
        self._num_layers = 0
        self._learns_texts = model.learns_texts
        self._own = {tensor.untyped_storage()._cdata for tensor in model.state_dict().values()}
        # what autograd keeps of each call of a tower, in bytes by the memory it lies in
        self._kept: list[tuple[str, dict[int, int]]] = []
        model.encode_classes = self._in_tower("text", model.encode_classes)  # type: ignore[method-assign]
        model.encode_video = self._in_tower("vision", model.encode_video)  # type: ignore[method-assign]

    def marked(self, layer_forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Stands for the compiled layer: takes note of what belongs to one call of it."""

        def call(*args: Any, **kwargs: Any) -> Tensor:
            self._num_layers += 1
            number = self._num_layers
            marked_args = [
                _Mark.apply(arg, lambda: self._be_in(number), lambda: self._be_in(None))
                if isinstance(arg, Tensor) and arg.is_floating_point()
                else arg
                for arg in args
            ]
            self._be_in(number)
            output = layer_forward(*marked_args, **kwargs)
            marked: Tensor = _Mark.apply(
                output, lambda: self._be_in(None), lambda: self._be_in(-number)
            )
            return marked

        return call

    def _be_in(self, layer: int | None) -> None:
        self._layer = layer

    def _in_tower(self, tower: str, encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def encode_here(*args: Any) -> Tensor:
            self._tower = tower
            self._kept.append((tower, {}))
            try:
                return encode(*args)
            finally:
                self._tower = "head"

        return encode_here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        if func.namespace != "aten" or name in _FREE:
            return result
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outputs:
            kernel = Kernel(
                phase=self._tower,
                name=name,
                kind=_kind(name),
                shape=tuple((inputs or outputs)[0].shape),
                dtype=outputs[0].dtype,
                flops=_flops(func, args, kwargs, result),
                reads=self._moved(inputs),
                writes=self._moved(outputs),
                layer=self._layer,
            )
            self._found.append((torch._C._current_graph_task_id(), kernel))
        return result

    def keep(self, tensor: Tensor) -> Tensor:
        """Autograd keeps this for the backward pass."""
        storage = tensor.untyped_storage()
        if self._kept and storage._cdata not in self._own:
            self._storages.append(storage)
            self._kept[-1][1][storage._cdata] = storage.nbytes()
        return tensor

    def kept_bytes(self) -> int:
        """What is kept at most: of the text tower, and of the largest micro-batch."""
        sizes = {tower: [0] for tower, _ in self._kept}
        for tower, kept in self._kept:
            sizes[tower].append(sum(kept.values()))
        return sum(max(found) for found in sizes.values())

    def _moved(self, tensors: list[Tensor]) -> dict[int, int]:
        moved: dict[int, int] = {}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._storages.append(storage)
            moved[storage._cdata] = max(moved.get(storage._cdata, 0), _distinct_bytes(tensor))
        return moved

    def kernels(self) -> list[Kernel]:
        """What was found, each with its phase."""
        last_pass = max(number for number, _ in self._found)

        def phase(number: int, kernel: Kernel) -> str:
            if number < 0:
                return f"{kernel.phase} forward" if kernel.phase != "head" else "head"
            of_text = self._learns_texts and number == last_pass
            return "text backward" if of_text else "vision backward"

        return [replace(kernel, phase=phase(number, kernel)) for number, kernel in self._found]


class _Mark(torch.autograd.Function):
    """Passes a tensor on, and tells when that happens, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward: Callable[[], None], backward: Callable[[], None]
    ) -> Tensor:
        ctx.tell = backward
        forward()
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.tell()
        return grad, None, None


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    packet, name = func._overloadpacket, func._schema.name
    # The counter does not know the CPU's name of it.
    if "flash_attention_for_cpu" in name:
        is_backward = "backward" in name
        query, key = args[1:3] if is_backward else args[:2]
        products = 5 if is_backward else 2
        return 2 * products * int(query.numel()) * int(key.shape[2])
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=result))
    return 0


def _kind(name: str) -> Kind:
    if name in _PRODUCTS:
        return "matrix product"
    if "scaled_dot_product" in name:
        return "attention"
    if "layer_norm" in name:
        return "LayerNorm"
    if name == "_to_copy":
        return "cast"
    return "copy" if name in _COPIES else "element-wise"


def _distinct_bytes(tensor: Tensor) -> int:
    """What is moved of a tensor: an expanded dimension lies in memory once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size if stride else 1 for size, stride in sizes) * tensor.element_size()
