"""What a step costs, by phase and kind of kernel, and what costs most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.roofline.devices import Device
from benchmarks.roofline.kernels import KINDS, Kernel

PHASES = ("text forward", "vision forward", "head", "vision backward", "text backward")
_ALL = "all"


@dataclass
class Cost:
    """What some kernels cost together."""

    kernels: int = 0
    flops: int = 0
    num_bytes: int = 0
    seconds: float = 0.0

    def add(self, kernel: Kernel, device: Device) -> None:
        """Adds a kernel."""
        self.kernels += 1
        self.flops += kernel.flops
        self.num_bytes += kernel.num_bytes
        self.seconds += kernel.seconds(device)


def costs(kernels: Sequence[Kernel], device: Device) -> dict[tuple[str, str], Cost]:
    """By phase and kind; ``all`` stands for every one."""
    found: dict[tuple[str, str], Cost] = defaultdict(Cost)
    for kernel in kernels:
        for phase in (kernel.phase, _ALL):
            for kind in (kernel.kind, _ALL):
                found[phase, kind].add(kernel, device)
    return found


def step_seconds(kernels: Sequence[Kernel], device: Device) -> float:
    """Of the step: in each phase the device's time, or the host's to launch its kernels if that is
    longer.
    """
    found = costs(kernels, device)
    return sum(
        max(found[phase, _ALL].seconds, found[phase, _ALL].kernels * device.launch_s)
        for phase in PHASES
    )


def share_of_peak(kernels: Sequence[Kernel], device: Device, dtype: torch.dtype) -> float:
    """The step's FLOPs over what the device's largest matrix products would do in its time."""
    flops = costs(kernels, device)[_ALL, _ALL].flops
    return flops / step_seconds(kernels, device) / device.matmul_flops[dtype]


def print_costs(kernels: Sequence[Kernel], device: Device) -> None:
    """A row for each phase and kind of kernel."""
    found = costs(kernels, device)
    print(f"{'phase':16}{'kind':16}{'kernels':>8}{'TFLOP':>9}{'GB':>9}{'ms':>9}")
    for phase in (*PHASES, _ALL):
        for kind in (*KINDS, _ALL):
            cost = found[phase, kind]
            if cost.kernels:
                print(
                    f"{phase:16}{kind:16}{cost.kernels:8}{cost.flops / 1e12:9.3f}"
                    f"{cost.num_bytes / 1e9:9.2f}{cost.seconds * 1e3:9.2f}"
                )


def print_costliest(kernels: Sequence[Kernel], device: Device, number: int = 10) -> None:
    """The kernels, alike ones together, that take most of the time."""
    alike: dict[tuple[str, str, tuple[int, ...]], Cost] = defaultdict(Cost)
    for kernel in kernels:
        alike[kernel.phase, kernel.name, kernel.shape].add(kernel, device)
    print(f"the {number} costliest kernels")
    ranked = sorted(alike.items(), key=lambda item: -item[1].seconds)
    for (phase, name, shape), cost in ranked[:number]:
        print(
            f"{cost.seconds * 1e3:9.2f} ms {cost.kernels:5} x {phase:16}{name[:48]} {list(shape)}"
        )
