"""Accuracy of models on a set of clips: supervised over their training classes, or zero-shot over
class names.

Several models are scored in one pass, so each video is decoded once for all of them.

Shape legend: B clips, V views of a clip, C classes (or color channels in ``BVCTHW``), T frames, H
and W pixels, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vitaclip.checkpoint import load_model
from vitaclip.class_names import clean_class_name
from vitaclip.config import BackboneConfig, DataConfig, EvalConfig, MethodConfig, TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.data.loader import check_broken, eval_batches
from vitaclip.data.manifest import Manifest
from vitaclip.distributed import default_device, gather_from_workers, rank_and_world_size
from vitaclip.errors import InputError
from vitaclip.methods.build import build_model
from vitaclip.methods.video_model import VideoModel
from vitaclip.score import Prediction, Score

EvalMode = Literal["supervised", "zero_shot"]


class Encode:
    """The clips of one batch, as models encode them; each model once."""

    def __init__(self, video_BCTHW: Tensor) -> None:
        self._video = video_BCTHW
        self._encoded: dict[VideoModel, Tensor] = {}

    def __call__(self, model: VideoModel) -> Tensor:
        """What the model makes of the clips."""
        if model not in self._encoded:
            self._encoded[model] = self.anew(model)
        return self._encoded[model]

    def anew(self, model: VideoModel) -> Tensor:
        """The same, of a model whose weights are others for now."""
        return model.encode_video(self._video)


@dataclass(frozen=True)
class Classifier:
    """A model and the text features ``[C, E]`` of the classes it chooses among."""

    model: VideoModel
    text_CE: Tensor

    def logits(self, encode: Encode) -> Tensor:
        """``[B, C]`` of the clips of a batch."""
        return self.model.logits(encode(self.model), self.text_CE)


def evaluate(
    checkpoint: Path,
    *,
    dataset: str,
    split: str,
    mode: EvalMode = "supervised",
    views: EvalConfig | None = None,
) -> Score:
    """Scores a checkpoint on a dataset's split.

    Args:
        checkpoint: its folder.
        dataset: the dataset's name; its folder is ``VITACLIP_DATA_<NAME>``.
        split: one of its splits.
        mode: ``supervised`` over the trained classes, or ``zero_shot`` over the split's names.
        views: how each clip is viewed; default: one view.

    Raises:
        CheckpointError: the checkpoint is incomplete or its backbone is another one.
        InputError: unknown dataset, or, supervised, classes other than the trained ones.
        DataError: too many of the clips cannot be read.
    """
    model, config = load_model(checkpoint)
    manifest = load_dataset(dataset, split)
    classifier = {"supervised": supervised_classifier, "zero_shot": zero_shot_classifier}[mode]
    trained = classifier(model.placed_on(default_device()), manifest.classes)
    return score_classifiers([trained], manifest, config.data, views or EvalConfig())[0]


def evaluate_clip(
    backbone: BackboneConfig, *, dataset: str, split: str, data: DataConfig, views: EvalConfig
) -> Score:
    """Scores the frozen CLIP alone, zero-shot over the split's class names: what prompts are
    compared with.

    Args:
        backbone: the CLIP.
        dataset: the dataset's name.
        split: one of its splits.
        data: how clips are drawn.
        views: how each clip is viewed.
    """
    manifest = load_dataset(dataset, split)
    model = frozen_clip(backbone, data.num_frames)
    classifier = zero_shot_classifier(model, manifest.classes)
    return score_classifiers([classifier], manifest, data, views)[0]


def frozen_clip(backbone: BackboneConfig, num_frames: int) -> VideoModel:
    """CLIP as it came, which was trained on no classes."""
    data = DataConfig(num_frames=num_frames)
    config = TrainConfig(method=MethodConfig(name="frozen_clip"), backbone=backbone, data=data)
    return build_model(config, class_names=()).placed_on(default_device())


@torch.no_grad()
def supervised_classifier(model: VideoModel, classes: Sequence[str]) -> Classifier:
    """The model with its trained classes, read with their learned context.

    Raises:
        InputError: the classes are not the trained ones in their order.
    """
    if [*map(clean_class_name, classes)] != [*map(clean_class_name, model.class_names)]:
        raise InputError(
            f"supervised evaluation needs the {len(model.class_names)} classes the checkpoint was "
            f"trained on, found {len(classes)} (first: '{classes[0]}' against "
            f"'{model.class_names[0]}'); use mode zero_shot"
        )
    return Classifier(model, model.encode_classes())


@torch.no_grad()
def zero_shot_classifier(
    model: VideoModel, classes: Sequence[str], templates: Sequence[str] = ()
) -> Classifier:
    """The model with any classes, read as plain names.

    With templates, sentences in which ``{}`` is the name, each class is the mean over them of the
    normalized features, as in CLIP's ensembles.
    """
    names = [*map(clean_class_name, classes)]
    if not templates:
        return Classifier(model, model.encode_names(names))
    return described_classifier(
        model, [[template.replace("{}", name) for template in templates] for name in names]
    )


@torch.no_grad()
def described_classifier(model: VideoModel, sentences: Sequence[Sequence[str]]) -> Classifier:
    """The model with classes that are described by one or several sentences each: the mean over
    them of the normalized features.
    """
    sums, counts = None, torch.tensor([float(len(found)) for found in sentences])
    for place in range(max(map(len, sentences))):
        having = [label for label, found in enumerate(sentences) if place < len(found)]
        features = model.encode_names([sentences[label][place] for label in having])
        normalized = F.normalize(features.float(), dim=-1)
        sums = normalized.new_zeros(len(sentences), normalized.shape[1]) if sums is None else sums
        sums[having] += normalized
    assert sums is not None  # every class has a sentence
    return Classifier(model, sums / counts.to(sums.device)[:, None])


def score_classifiers(
    classifiers: Sequence[Classifier], manifest: Manifest, data: DataConfig, views: EvalConfig
) -> list[Score]:
    """Scores models on a manifest in one pass, sharing the clips among workers if there are
    several.

    Args:
        classifiers: the models, all for frames of one size.
        manifest: the clips.
        data: how clips are drawn, the same for all models.
        views: how each clip is viewed.

    Raises:
        DataError: more than ``data.max_broken`` of the clips cannot be read.
    """
    rank, world_size = rank_and_world_size()
    image_size = classifiers[0].model.image_size
    predictions: list[list[Prediction]] = [[] for _ in classifiers]
    broken: dict[int, str] = {}
    for batch in eval_batches(
        manifest, data, views, image_size=image_size, rank=rank, world_size=world_size
    ):
        broken |= batch.broken
        probabilities = class_probabilities(classifiers, batch.video)
        for found, probabilities_BC in zip(predictions, probabilities, strict=True):
            found.extend(_predictions(probabilities_BC, batch.labels, batch.indices))
    gathered = [gather_from_workers(found) for found in predictions]
    broken = dict(gather_from_workers(list(broken.items())))
    check_broken(broken, manifest, data)
    return [
        Score(manifest.classes, tuple(sorted(found, key=lambda p: p.clip)), len(broken))
        for found in gathered
    ]


@torch.inference_mode()
def class_probabilities(
    classifiers: Sequence[Classifier], video_BVCTHW: Tensor
) -> Iterator[Tensor]:
    """For each classifier the softmax over classes, averaged over the views of a clip (released
    code): ``[B, C]``, on the CPU.
    """
    if not len(video_BVCTHW):
        yield from (torch.zeros(0, len(classifier.text_CE)) for classifier in classifiers)
        return
    num_views = video_BVCTHW.shape[1]
    video = video_BVCTHW.flatten(0, 1).to(classifiers[0].text_CE.device, non_blocking=True)
    encode = Encode(video)
    for classifier in classifiers:
        logits = classifier.logits(encode)
        probabilities_BC: Tensor = logits.softmax(dim=-1).unflatten(0, (-1, num_views)).mean(dim=1)
        yield probabilities_BC.float().cpu()


def _predictions(
    probabilities_BC: Tensor, labels_B: Tensor, indices_B: Tensor
) -> Iterable[Prediction]:
    ranked = probabilities_BC.topk(min(5, probabilities_BC.shape[1])).indices.tolist()
    losses = -probabilities_BC.gather(1, labels_B[:, None]).clamp_min(1e-12).log()[:, 0]
    rows = zip(indices_B.tolist(), labels_B.tolist(), ranked, losses.tolist(), strict=True)
    return (Prediction(clip, label, tuple(best), loss) for clip, label, best, loss in rows)
