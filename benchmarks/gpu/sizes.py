"""How large everything is: as it is measured on a GPU, and as it is tried without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of all that the command measures."""

    model: str  # open_clip's name
    num_frames: int
    precision: str
    classes: tuple[int, ...]
    # clips of a step, and how many of them pass through the model at once
    batches: tuple[tuple[int, int], ...]
    repeats: int  # of a step; the fastest counts
    num_videos: int  # of the loader's dataset
    loader_workers: tuple[int, ...]
    loader_batch: int
    eval_clips: int  # that are scored at once


H100 = Sizes(
    model="ViT-B-16-quickgelu",
    num_frames=8,
    precision="bf16",
    classes=(100, 400),
    batches=((16, 16), (64, 64), (64, 16)),
    repeats=3,
    num_videos=32,
    loader_workers=(8, 16),
    loader_batch=16,
    eval_clips=64,
)
TINY = Sizes(
    model="quickstart-tiny",
    num_frames=2,
    precision="bf16",
    classes=(3, 5),
    batches=((2, 2), (4, 2)),
    repeats=1,
    num_videos=8,
    loader_workers=(0, 1),
    loader_batch=4,
    eval_clips=2,
)
