"""Clips a second: of evaluation on the device, and of the processes that decode for it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.data import write_scene
from benchmarks.gpu.models import clips_of, model_of
from benchmarks.gpu.sizes import TINY, Sizes
from benchmarks.gpu.steps import seconds_of
from testing.motions import MOTIONS, write_motions
from vitaclip.config import TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.data.loader import train_batches
from vitaclip.distributed import default_device
from vitaclip.evaluation import class_probabilities, supervised_classifier

DATASET = "gpu_benchmark"
_TIMED_ROUNDS = 3  # in which each process makes a batch


def measure_evaluation(sizes: Sizes) -> dict[str, object]:
    """Of the device alone: the clips are in memory."""
    model = model_of(sizes, max(sizes.classes), sizes.precision).placed_on(default_device())
    classifier = supervised_classifier(model, model.class_names)
    video, _ = clips_of(model, sizes.eval_clips)
    score = partial(lambda: list(class_probabilities([classifier], video[:, None])))
    score()
    best = min(seconds_of(score) for _ in range(sizes.repeats))
    return {"clips_at_once": sizes.eval_clips, "clips_per_s": sizes.eval_clips / best}


@contextmanager
def videos(sizes: Sizes, folder: Path) -> Iterator[None]:
    """Kinetics-like files as a dataset, each many times; frames are not cached."""
    folder.mkdir()
    if sizes is TINY:
        write_motions(folder, num_train=sizes.num_videos, num_val=4)
    else:
        _write_scenes(folder, sizes.num_videos)
    settings = {f"VITACLIP_DATA_{DATASET.upper()}": str(folder), "VITACLIP_FRAME_CACHE_GB": "0"}
    with patch.dict(os.environ, settings):
        yield


def _write_scenes(folder: Path, number: int) -> None:
    paths = [folder / f"{index}.mp4" for index in range(number)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_scene, paths, range(number)))
    (folder / "classes.txt").write_text("\n".join(MOTIONS))
    for split, num_clips in (("train", 1024), ("val", 64)):
        rows = []
        for index in range(num_clips):
            clip = folder / f"{split}_{index}.mp4"
            clip.hardlink_to(paths[index % number])
            rows.append(f"{clip.name},{list(MOTIONS)[index % len(MOTIONS)]}")
        (folder / f"{split}.csv").write_text("\n".join(rows))


def measure_loader(sizes: Sizes) -> Iterator[dict[str, object]]:
    """A row for each number of processes, with the augmentation of the paper's training."""
    for num_workers in sizes.loader_workers:
        config = TrainConfig.model_validate(
            {
                "data": {
                    "dataset": DATASET,
                    "num_frames": sizes.num_frames,
                    "num_workers": num_workers,
                },
                "batch_size": sizes.loader_batch,
            }
        )
        batches = train_batches(load_dataset(DATASET, "train"), config, image_size=224)
        # In the first round processes start.
        for _ in itertools.islice(batches, max(1, num_workers)):
            pass
        started, num_clips = time.perf_counter(), 0
        for batch in itertools.islice(batches, _TIMED_ROUNDS * max(1, num_workers)):
            num_clips += len(batch.video)
        seconds = time.perf_counter() - started
        yield {"processes": num_workers, "clips_per_s": num_clips / seconds}


def describe_device() -> dict[str, object]:
    """What the figures are of."""
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }
