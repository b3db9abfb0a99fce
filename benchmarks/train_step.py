"""Times one optimizer step of the product against the straightforward reference, in one process,
alternating.

The reference (``testing/reference_model.py``) computes what the released code computes: 77 text
tokens, the text tower once per micro-batch, every prompt as a full token, materialized attention.
Both start from the same weights and give the same gradients; the ratio of the best times and of the
peak memory is printed.

    python -m benchmarks.train_step --classes 400 --micro-batches 1
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from testing.reference_model import reference_step
from vitaclip.config import BackboneConfig, DataConfig, ModelConfig
from vitaclip.distributed import default_device
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import load_backbone
from vitaclip.optimizer import accumulate_gradients

MIB = 2**20


@dataclass
class Timing:
    """Seconds and peak memory of each repetition; bytes beyond what was held before the step."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)


class PeakMemory:
    """Highest memory of this process while it is open, sampled: the GPU allocator's, or resident
    memory on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak_bytes = device, 0
        self._process, self._done = psutil.Process(), threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._sample)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated() - self._before
        else:
            self._done.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss - self._before)


def measure(step: Callable[[], Tensor], model: VitaCLIP, timing: Timing) -> float:
    """Runs one step and records it; returns its loss."""
    model.zero_grad(set_to_none=True)
    gc.collect()
    _return_freed_memory()
    device = model.logit_scale.device
    with PeakMemory(device) as memory:
        started = time.perf_counter()
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        timing.seconds.append(time.perf_counter() - started)
    timing.peak_bytes.append(memory.peak_bytes)
    return float(loss)


def _return_freed_memory() -> None:
    """Gives memory freed by the other side back to the system, so that it is not taken for held
    (glibc only).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def class_names(number: int) -> list[str]:
    """Names as long as Kinetics' are (one to four words)."""
    words = [
        "playing",
        "riding",
        "cooking",
        "water",
        "guitar",
        "mountain",
        "throwing",
        "paper",
        "swimming",
        "dance",
    ]
    return [" ".join(words[(i * 7 + k * 3) % 10] for k in range(1 + i % 4)) for i in range(number)]


def build(args: argparse.Namespace) -> VitaCLIP:
    """A model with as many classes as asked for."""
    backbone = load_backbone(BackboneConfig(name=args.model, pretrained="random"))
    torch.manual_seed(0)
    model = VitaCLIP(
        backbone,
        ModelConfig(
            data=DataConfig(num_frames=args.frames),
            precision=args.precision,
            compile=args.compile,
        ),
        class_names(args.classes),
    )
    return model.to(default_device())


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model name")
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--batch", type=int, default=2, help="clips per micro-batch")
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of the product; the reference is fp32",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the product's layers")
    parser.add_argument(
        "--repeats", type=int, default=2, help="alternations; the best time of each side counts"
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = build(args)
    device = model.logit_scale.device
    size = model.clip.visual.image_size[0]
    num_clips = args.batch * args.micro_batches
    video = torch.randn(num_clips, 3, args.frames, size, size, device=device)
    labels = torch.randint(args.classes, (num_clips,), device=device)
    sides = {
        "reference": lambda: reference_step(model, video, labels, args.batch),
        "product": lambda: accumulate_gradients(model, video, labels, micro_batch_size=args.batch),
    }
    timings = {name: Timing() for name in sides}
    losses = {}
    if args.compile:
        sides["product"]()  # untimed: the first step compiles
    for _ in range(args.repeats):
        for name, step in sides.items():
            losses[name] = measure(step, model, timings[name])
    report(args, timings, losses, device)


def report(
    args: argparse.Namespace,
    timings: dict[str, Timing],
    losses: dict[str, float],
    device: torch.device,
) -> None:
    """Prints the two sides and their ratios."""
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"{args.model}, {args.frames} frames, {args.classes} classes, {args.micro_batches} x "
          f"{args.batch} clips, {args.precision}{', compiled' * args.compile}; torch "
          f"{torch.__version__}, {where}")  # fmt: skip
    for name, timing in timings.items():
        print(f"  {name:10} best {min(timing.seconds):7.2f} s  all "
              f"{[round(s, 2) for s in timing.seconds]}  peak +{max(timing.peak_bytes) / MIB:6.0f} "
              f"MiB  loss {losses[name]:.5f}")  # fmt: skip
    reference, product = timings["reference"], timings["product"]
    print(f"  speed-up {min(reference.seconds) / min(product.seconds):.2f}x, "
          f"memory {max(product.peak_bytes) / max(reference.peak_bytes):.0%} of the "
          "reference's")  # fmt: skip


if __name__ == "__main__":
    main()
