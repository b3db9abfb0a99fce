"""``torch.compile`` for the towers' layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# A step of ViT-B/16 with 64 clips on an H100 is about 40 ms faster (docs/gpu.md), and compiling
# takes one to two minutes.
WORTHWHILE_STEPS = 3000


@cache
def compiled(layer_forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A tower's layer through ``torch.compile``: compiled once a process, for all layers of all
    models.

    Sizes stay symbols in what is compiled. So another batch size, other class names or another
    number of prompts need no compilation of their own.
    """
    return torch.compile(layer_forward, dynamic=True)


def is_worthwhile(device: torch.device, num_steps: int) -> bool:
    """Whether a training of so many optimizer steps is done sooner with compiled layers."""
    return device.type == "cuda" and num_steps >= WORTHWHILE_STEPS
