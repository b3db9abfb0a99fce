"""Classes for one's own videos: a checkpoint, any video files, any class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vitaclip.checkpoint import load_model
from vitaclip.config import EvalConfig
from vitaclip.data.container import require_local_file
from vitaclip.data.loader import eval_batches
from vitaclip.data.manifest import Clip, Manifest
from vitaclip.distributed import default_device
from vitaclip.errors import DataError
from vitaclip.evaluate import Candidate, class_probabilities
from vitaclip.model.vita_clip import VitaCLIP


@dataclass(frozen=True)
class VideoPrediction:
    """The most probable classes of one video, best first."""

    video: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(
    checkpoint: Path,
    videos: Sequence[Path],
    class_names: Sequence[str] | None = None,
    *,
    views: EvalConfig | None = None,
    num_best: int = 5,
) -> list[VideoPrediction]:
    """The ``num_best`` classes of each video, in the order given; the class names are encoded once.

    Names that were all trained (default: every trained one) are read with their learned context; as soon as one is
    new, all are read as plain names (zero-shot).

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DataError: a video cannot be read; the message names it.
    """
    for video in videos:
        require_local_file(str(video))
    model, config = load_model(checkpoint)
    model.to(default_device())
    names = tuple(class_names or model.class_names)
    clips = tuple(Clip(str(video.absolute()), label=0) for video in videos)
    data = config.data.model_copy(update={"max_broken": 0.0, "limit": None})
    batches = eval_batches(
        Manifest("videos", names, clips),
        data,
        views or EvalConfig(),
        image_size=model.clip.visual.image_size[0],
    )
    one = _candidate(model, names)
    probabilities = torch.cat([class_probabilities(one, batch.video) for batch in batches])
    if len(probabilities) != len(clips):
        raise DataError(f"{len(clips) - len(probabilities)} of {len(clips)} videos cannot be read")
    best = probabilities.topk(min(num_best, len(names)))
    return [
        VideoPrediction(str(video), tuple(names[i] for i in indices), tuple(values))
        for video, indices, values in zip(videos, best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@torch.no_grad()
def _candidate(model: VitaCLIP, names: Sequence[str]) -> Candidate:
    places = {name: place for place, name in enumerate(model.class_names)}
    if all(name in places for name in names):
        return Candidate(model, model.encode_classes()[[places[name] for name in names]])
    return Candidate(model, model.encode_names(names))
