"""Classes for one's own videos: a checkpoint, any video files, any class names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitaclip.checkpoint import load_model
from vitaclip.class_names import check_class_names, clean_class_name
from vitaclip.config import DataConfig, EvalConfig
from vitaclip.data.container import require_local_file
from vitaclip.data.loader import eval_batches
from vitaclip.data.manifest import Clip, Manifest
from vitaclip.distributed import default_device
from vitaclip.errors import DataError
from vitaclip.evaluation import Classifier, class_probabilities
from vitaclip.methods.video_model import VideoModel

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoPrediction:
    """The most probable classes of one video, best first; none, and an error, if it cannot be
    read.
    """

    video: str
    classes: tuple[str, ...]  # clean names
    probabilities: tuple[float, ...]
    learned_context: bool  # whether the names were read with their learned context, or plain
    error: str | None = None


def predict(
    checkpoint: Path,
    videos: Sequence[Path],
    class_names: Sequence[str] | None = None,
    *,
    views: EvalConfig | None = None,
    num_best: int = 5,
) -> list[VideoPrediction]:
    """The ``num_best`` classes of each video, in the order given; the class names are encoded once.

    Names that were all trained (default: every trained one) are read with their learned context; as
    soon as one is new, all are read as plain names (zero-shot), and a warning says so. Names are
    cleaned as those of data sets are.

    Args:
        checkpoint: its folder.
        videos: files.
        class_names: to choose among; None: the trained ones.
        views: how each video is viewed; default: one view.
        num_best: how many classes are named.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        InputError: two of the names are the same.
    """
    if class_names is not None:
        check_class_names(
            "class names", {f"name {n}": name for n, name in enumerate(class_names, start=1)}
        )
    model, config = load_model(checkpoint)
    model.placed_on(default_device())
    names = tuple(map(clean_class_name, model.class_names if class_names is None else class_names))
    classifier, is_learned = _classifier(model, names)
    probabilities, broken = _probabilities(
        classifier, names, videos, config.data, views or EvalConfig()
    )
    predictions = []
    for place, video in enumerate(videos):
        if place in broken:
            predictions.append(VideoPrediction(str(video), (), (), is_learned, broken[place]))
            continue
        best = probabilities[place].topk(min(num_best, len(names)))
        classes = tuple(names[i] for i in best.indices.tolist())
        predictions.append(
            VideoPrediction(str(video), classes, tuple(best.values.tolist()), is_learned)
        )
    return predictions


def _probabilities(
    classifier: Classifier,
    names: tuple[str, ...],
    videos: Sequence[Path],
    data: DataConfig,
    views: EvalConfig,
) -> tuple[dict[int, Tensor], dict[int, str]]:
    """By each video's place: the probabilities ``[C]`` of those that can be read, and what is wrong
    with the rest.
    """
    broken = _not_local(videos)
    places = [place for place in range(len(videos)) if place not in broken]
    clips = tuple(Clip(str(videos[place].absolute()), label=0) for place in places)
    probabilities: dict[int, Tensor] = {}
    for batch in eval_batches(
        Manifest("videos", names, clips),
        data.model_copy(update={"max_broken": 1.0, "limit": None}),
        views,
        image_size=classifier.model.image_size,
    ):
        broken |= {places[index]: reason for index, reason in batch.broken.items()}
        [rows] = class_probabilities([classifier], batch.video)
        probabilities |= {
            places[index]: row for index, row in zip(batch.indices.tolist(), rows, strict=True)
        }
    return probabilities, broken


def _not_local(videos: Sequence[Path]) -> dict[int, str]:
    """What is wrong with the names, by their places, as long as they are as the user wrote them."""
    broken = {}
    for place, video in enumerate(videos):
        try:
            require_local_file(str(video))
        except DataError as error:
            broken[place] = str(error)
    return broken


@torch.no_grad()
def _classifier(model: VideoModel, names: Sequence[str]) -> tuple[Classifier, bool]:
    """The model with its text features of the names, and whether these have learned context."""
    places = {clean_class_name(name): place for place, name in enumerate(model.class_names)}
    trained = [name for name in names if name in places]
    if len(trained) == len(names):
        features = model.encode_classes()[[places[name] for name in names]]
        return Classifier(model, features), model.learns_texts
    if trained:
        _logger.warning(
            "%d of %d class names were trained (%s), the others are new: all are read as plain "
            "names, without learned context", len(trained), len(names), ", ".join(trained[:5]),
        )  # fmt: skip
    return Classifier(model, model.encode_names(names)), False
