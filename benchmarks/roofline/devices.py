"""What devices reach: a data sheet says more than programs get, so presets are of what was
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

_EDGE = 2048  # of the matrices that a CPU is measured with
_COPIED = 2**26  # numbers of the tensor that a CPU is measured with: beyond its caches
_REPEATS = 3


@dataclass(frozen=True)
class Device:
    """What a device reaches at best."""

    name: str
    # FLOP/s of large matrix products, by the type they compute in
    matmul_flops: dict[torch.dtype, float]
    bytes_per_s: float  # read and written
    # FLOP/s of fused attention, forward and backward; None: as matrix products
    attention_flops: tuple[float, float] | None = None
    # the shortest time of a kernel, in seconds
    kernel_s: float = 0.0
    # how long the host takes to launch a kernel, in seconds
    launch_s: float = 0.0
    # share of ``matmul_flops`` that large products of a CLIP's inner sizes (768, 3072) reach
    matmul_share: float = 1.0
    # what a product takes beside that, in seconds, for its first and its last tiles
    matmul_fixed_s: float = 0.0

    def with_limits(self, flops: float | None, bytes_per_s: float | None) -> Device:
        """The device with other FLOP/s of large matrix products, of whatever type, and bytes/s."""
        return replace(
            self,
            matmul_flops=dict.fromkeys(self.matmul_flops, flops) if flops else self.matmul_flops,
            bytes_per_s=bytes_per_s or self.bytes_per_s,
        )

    def matmul_s(self, flops: float, dtype: torch.dtype) -> float:
        """Seconds for a matrix product of ``flops``."""
        return self.matmul_fixed_s + flops / (self.matmul_flops[dtype] * self.matmul_share)

    def attention_s(self, flops: float, dtype: torch.dtype, *, is_backward: bool) -> float:
        """Seconds for a fused attention of ``flops``."""
        if self.attention_flops is None or dtype == torch.float32:
            return self.matmul_s(flops, dtype)
        return flops / self.attention_flops[is_backward]


H100 = Device(
    "H100 (SXM; 798 TFLOP/s measured with bf16 cubes of 8,192, 3.0 TB/s)",
    {torch.bfloat16: 798e12, torch.float16: 798e12, torch.float32: 52e12},
    bytes_per_s=3.0e12,
    attention_flops=(260e12, 180e12),
    kernel_s=2.5e-6,
    launch_s=7e-6,
    matmul_share=0.78,
    matmul_fixed_s=5e-6,
)
A100 = replace(
    H100,
    name="A100 (80 GB; 85% of its data sheet's 312 TFLOP/s and 2.0 TB/s)",
    matmul_flops={torch.bfloat16: 265e12, torch.float16: 265e12, torch.float32: 16e12},
    bytes_per_s=1.7e12,
    attention_flops=(160e12, 110e12),
    kernel_s=3e-6,
)
PRESETS = {"h100": H100, "a100": A100}


def measure_cpu() -> Device:
    """This CPU, with the number of threads that torch has: matrix cubes and copies of a large
    tensor, the best of three.
    """
    flops = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(_EDGE, _EDGE, dtype=dtype)
        flops[dtype] = 2 * _EDGE**3 / _best_s(partial(torch.matmul, square, square))
    source, target = torch.ones(_COPIED), torch.zeros(_COPIED)
    copied = source.nbytes + target.nbytes
    bytes_per_s = copied / _best_s(lambda: target.copy_(source))
    name = (
        f"this CPU ({torch.get_num_threads()} threads; "
        f"{flops[torch.float32] / 1e9:.0f} GFLOP/s fp32, {flops[torch.bfloat16] / 1e9:.0f} bf16, "
        f"{bytes_per_s / 1e9:.1f} GB/s)"
    )
    return Device(name, flops, bytes_per_s, kernel_s=5e-6)


def _best_s(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
