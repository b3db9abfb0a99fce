"""What a study asks of GPUs, before any trial has run: an estimate by the cost model of a step."""

from __future__ import annotations

import math
import os

from orchestrator.config import StudyConfig
from vitaclip.cost import clips_per_second
from vitaclip.data.datasets import load_dataset, root_variable
from vitaclip.errors import InputError

# Clips that a core decodes in a second, of Kinetics-like files (docs/measurements/video.md).
_ORIGINALS_PER_S, _PREPARED_PER_S = 18, 77


def gpu_estimate(config: StudyConfig) -> str:
    """GPU-hours of a trial, and how many cores decode as fast as its GPUs train. The trial is the
    study's ``train``, without what varies.
    """
    train, resources = config.train, config.resources
    speed = clips_per_second(train)
    workers = max(1, resources.max_workers)
    gpus = workers * resources.gpus_per_worker
    cores = [math.ceil(speed / per_s) for per_s in (_ORIGINALS_PER_S, _PREPARED_PER_S)]
    parts = [
        f"estimated for an H100: {speed:,.0f} clips/s each, fed by {cores[0]} cores that decode "
        f"original files or {cores[1]} prepared ones (data.num_workers: {train.data.num_workers})"
    ]
    if num_clips := _training_clips(config):
        hours = train.epochs * num_clips / speed / 3600
        parts.append(
            f"{hours:.1f} GPU-hours a trial, {hours / gpus:.1f} hours on its {gpus:g} GPU(s), and "
            "validation"
        )
    return "; ".join(parts)


def _training_clips(config: StudyConfig) -> int:
    """0 where the data set is not on this machine."""
    data = config.train.data
    if not os.environ.get(root_variable(data.dataset)):
        return 0
    try:
        return len(load_dataset(data.dataset, data.train_split).clips)
    except InputError:
        return 0
