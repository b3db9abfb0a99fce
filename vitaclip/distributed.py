"""This process among the workers of one training: its device, its rank, and what workers
exchange.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed

from vitaclip.errors import WorkerLostError

Item = TypeVar("Item")
_BF16_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")  # x86 vectors, x86 matrices, ARM


def default_device() -> torch.device:
    """This process's accelerator, or the CPU. On the accelerator fp32 means IEEE fp32 from then on:
    cuDNN's convolutions would round to the 10 bits of TF32.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", torch.cuda.current_device())


def mixed_precision(device: torch.device) -> torch.dtype | None:
    """What ``precision: mixed`` means on a device: bf16 where it computes in it, else fp16 on a
    GPU; None: fp32.
    """
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(capabilities.get(name) for name in _BF16_CPU_FEATURES) else None


def rank_and_world_size() -> tuple[int, int]:
    """This worker's rank and the number of workers; 0 and 1 outside of ``torch.distributed``."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class Average:
    """The mean over workers of their tensors, on its way in one message while this worker goes on.

    All workers send their messages in the same order.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Sends the tensors as they are now.

        Raises:
            WorkerLostError: see :func:`gather_from_workers`.
        """
        _, self._world_size = rank_and_world_size()
        self._flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _all_answer():
            self._work = distributed.all_reduce(self._flat, async_op=True)

    def write_into(self, tensors: Sequence[Tensor]) -> None:
        """Waits for the mean and writes it into tensors of the shapes that were sent.

        Raises:
            WorkerLostError: see :func:`gather_from_workers`.
        """
        with _all_answer():
            self._work.wait()
        means = (self._flat / self._world_size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))


def average_over_workers(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors by their mean over workers; nothing to do for one worker.

    Raises:
        WorkerLostError: see :func:`gather_from_workers`.
    """
    _, world_size = rank_and_world_size()
    if world_size > 1:
        Average(tensors).write_into(tensors)


def gather_from_workers(items: list[Item]) -> list[Item]:
    """All workers' items, in rank order, on every worker.

    Raises:
        WorkerLostError: a worker is gone, or does not answer within the process group's time. With
            NCCL, which answers later, PyTorch's watchdog ends this process instead.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return items
    everyone: list[list[Item]] = [[] for _ in range(world_size)]
    with _all_answer():
        distributed.all_gather_object(everyone, items)
    return [item for mine in everyone for item in mine]


@contextmanager
def _all_answer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of all back ends, whatever went wrong
        rank, world_size = rank_and_world_size()
        raise WorkerLostError(
            f"worker {rank} of {world_size} waited for the others: one of them hangs or is gone; "
            f"look for the first error in their logs ({error})"
        ) from error
