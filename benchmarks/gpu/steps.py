"""A training step: how long it takes, eager and compiled, beside the straightforward reference in
the same process; how near it comes to the device's peak; how much memory it takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from open_clip.model import CLIP
from torch import Tensor

from benchmarks.gpu.models import backbone_of, clips_of, model_of
from benchmarks.gpu.sizes import Sizes
from benchmarks.roofline.devices import H100
from benchmarks.roofline.kernels import record_step
from benchmarks.roofline.tables import costs
from benchmarks.train_step import Timing, class_names, measure
from testing.reference_model import reference_step
from vitaclip.clip_config import read_clip_config
from vitaclip.config import ModelConfig
from vitaclip.distributed import default_device
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import Backbone, freeze
from vitaclip.optimizer import accumulate_gradients, is_out_of_memory

GIB = 2**30
_PEAK = H100.matmul_flops[torch.bfloat16]


@dataclass(frozen=True)
class Case:
    """One size of a step, and its FLOPs."""

    num_classes: int
    num_clips: int
    micro_batch: int
    flops: int


def cases(sizes: Sizes) -> list[Case]:
    """Counts FLOPs on tensors without memory, so before a device is pretended."""
    return [
        Case(num_classes, clips, micro_batch, _flops(sizes, num_classes, clips, micro_batch))
        for num_classes in sizes.classes
        for clips, micro_batch in sizes.batches
    ]


def _flops(sizes: Sizes, num_classes: int, num_clips: int, micro_batch: int) -> int:
    config = ModelConfig.model_validate(
        {"data": {"num_frames": sizes.num_frames}, "precision": sizes.precision}
    )

    def make_model() -> VitaCLIP:
        clip = freeze(CLIP(**read_clip_config(backbone_of(sizes))))
        return VitaCLIP(Backbone(clip, sha256=""), config, class_names(num_classes))

    step = record_step(make_model, num_clips=num_clips, micro_batch_size=micro_batch)
    return costs(step.kernels, H100)["all", "all"].flops


def measure_steps(sizes: Sizes, found: list[Case]) -> Iterator[dict[str, object]]:
    """A row for each case and way of computing it."""
    for num_classes in sizes.classes:
        model = model_of(sizes, num_classes, sizes.precision).placed_on(default_device())
        for case in found:
            if case.num_classes == num_classes:
                yield from _measure_case(sizes, case, model)


def _measure_case(sizes: Sizes, case: Case, model: VitaCLIP) -> Iterator[dict[str, object]]:
    video, labels = (tensor.to(model.device) for tensor in clips_of(model, case.num_clips))
    product = partial(accumulate_gradients, model, video, labels, micro_batch_size=case.micro_batch)
    ways: dict[str, tuple[bool, Callable[[], Tensor]]] = {
        "reference": (False, partial(_reference, model, video, labels, case.micro_batch)),
        "eager": (False, product),
        "compiled": (True, product),
    }
    for name, (is_compiled, step) in ways.items():
        model.compile_layers = is_compiled
        size = {"classes": case.num_classes, "clips": case.num_clips, "at_once": case.micro_batch}
        yield {"step": name, **size, **_measured(sizes, case, model, step)}


def _reference(model: VitaCLIP, video: Tensor, labels: Tensor, micro_batch: int) -> Tensor:
    """In the product's precision, on the same bytes."""
    with model.autocast():
        pixels = (video / 255 - model.pixel_mean.view(3, 1, 1, 1)) / model.pixel_std.view(
            3, 1, 1, 1
        )
        return reference_step(model, pixels, labels, micro_batch)


def _measured(
    sizes: Sizes, case: Case, model: VitaCLIP, step: Callable[[], Tensor]
) -> dict[str, object]:
    first, timing = Timing(), Timing()
    try:
        loss = measure(step, model, first)  # compiles, and chooses kernels
        for _ in range(sizes.repeats):
            measure(step, model, timing)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"error": "out of memory"}
    finally:
        model.zero_grad(set_to_none=True)
    best = min(timing.seconds)
    return {
        "ms": best * 1e3,
        "clips_per_s": case.num_clips / best,
        # Of the product's FLOPs, whoever computes the step: the reference's detours are no use.
        "share_of_peak": case.flops / best / _PEAK,
        "gib": max(timing.peak_bytes) / GIB,
        "first_s": first.seconds[0],
        "loss": loss,
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Of a call, to the end of what it launched."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
