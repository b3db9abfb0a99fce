"""The benchmark stage: scores of trials' best checkpoints, computed once and kept in the study's
record.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClassTexts
from orchestrator.evaluation.protocols.supervised import Supervised
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.storage.records.score import Baseline, BenchmarkScore, BlendScore, ScoredModel
from orchestrator.storage.records.split_score import SplitScore
from orchestrator.storage.study_record import StudyRecord
from vitaclip.blending import blend
from vitaclip.checkpoint import load_model
from vitaclip.config import DataConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.data.identity import DataIdentity, identify
from vitaclip.data.manifest import Manifest
from vitaclip.distributed import default_device
from vitaclip.errors import InputError
from vitaclip.evaluation import (
    Classifier,
    described_classifier,
    frozen_clip,
    score_classifiers,
    supervised_classifier,
    zero_shot_classifier,
)
from vitaclip.methods.video_model import FrozenWeights, VideoModel
from vitaclip.score import Score

_Key = TypeVar("_Key")  # what the caller calls a model

# How the published datasets are scored where a command names only the dataset.
PUBLISHED_BENCHMARKS: Mapping[str, BenchmarkConfig] = {
    benchmark.dataset: benchmark
    for benchmark in (
        ZeroShot(dataset="hmdb51", split=("test_1", "test_2", "test_3"), mode="zero_shot"),
        ZeroShot(dataset="ucf101", split=("test_1", "test_2", "test_3"), mode="zero_shot"),
        ZeroShot(
            dataset="kinetics600",
            split=("zero_shot_1", "zero_shot_2", "zero_shot_3"),
            mode="zero_shot",
        ),
        Supervised(dataset="kinetics400", split="val", mode="supervised"),
        Supervised(dataset="kinetics700", split="val", mode="supervised"),
        Supervised(dataset="ssv2", split="val", mode="supervised"),
        ZeroShot(dataset="quickstart", split="zero_shot", mode="zero_shot"),
    )
}


class Blended(NamedTuple):
    """A trial's model, blended with the frozen CLIP."""

    number: int
    alpha: float


@dataclass(frozen=True)
class LoadedModel:
    """A model to score, and how clips must be drawn for it; or a blend of it with the frozen
    CLIP.
    """

    model: VideoModel
    data: DataConfig
    clip: VideoModel | None = None
    alpha: float = 1.0  # the model's share, where there is a frozen CLIP

    @property
    def clip_shape(self) -> tuple[object, ...]:
        """Models that agree in this can share decoded clips."""
        data = self.data
        return (data.num_frames, data.sampling, data.stride, self.model.image_size)


def score_trials(
    record: StudyRecord, numbers: Sequence[int], benchmark: BenchmarkConfig
) -> dict[int, BenchmarkScore]:
    """Scores of several trials, each video decoded once for all of them.

    What was scored by this protocol before is read, not computed. The frozen CLIP itself is scored
    in the same pass, on clips drawn as for each of the trials, so that each table can show what the
    prompts gained.

    Raises:
        InputError: a trial has no checkpoint, or the benchmark does not fit it.
        CheckpointError: a checkpoint or its backbone is not what it says.
    """
    baselines = {
        Baseline.of(train): train.data for train in (record.trial(n).info.train for n in numbers)
    }
    models: list[ScoredModel] = [*numbers, *baselines]
    scores = {model: _known_score(record, model, benchmark) for model in models}
    missing = [model for model, score in scores.items() if score is None]
    if missing:
        _check_data(record, benchmark, [score for score in scores.values() if score])
        new = _compute(record, missing, baselines, benchmark)
        for model in missing:
            record.scores(model).write(new[model])
        scores |= new
    return {number: score for number in numbers if (score := scores[number]) is not None}


def _check_data(
    record: StudyRecord, benchmark: BenchmarkConfig, known: Sequence[BenchmarkScore]
) -> None:
    """Raises InputError if the data is not that of the study's start and of the scores that are
    there.
    """
    for split in benchmark.splits:
        name = f"{benchmark.dataset}/{split}"
        before = [
            scored.data for score in known for scored in score.splits if scored.split == split
        ]
        if name in record.info.inputs.data:
            before.append(record.info.inputs.data[name])
        now = identify(load_dataset(benchmark.dataset, split))
        if differing := next((found for data in before if (found := data.differences(now))), None):
            raise InputError(
                f"study {record.name!r} was scored or started on other data of {name}: "
                f"{'; '.join(differing)}; restore it, or give the dataset another name "
                "(VITACLIP_DATA_<NAME>) and score all trials on that"
            )


def _known_score(
    record: StudyRecord, model: ScoredModel, benchmark: BenchmarkConfig
) -> BenchmarkScore | None:
    score = record.scores(model).read(benchmark)
    if (
        score is None
        or isinstance(model, Baseline)
        or score.checkpoint == record.trial(model).best_checkpoint(record.objective)
    ):
        return score
    return None


def _compute(
    record: StudyRecord,
    models: Sequence[ScoredModel],
    baselines: Mapping[Baseline, DataConfig],
    benchmark: BenchmarkConfig,
) -> dict[ScoredModel, BenchmarkScore]:
    """Scores of models that have none.

    Args:
        record: where trials' checkpoints are.
        models: trials and baselines.
        baselines: how clips are drawn for each baseline.
        benchmark: what they are scored on.
    """
    started = time.perf_counter()
    checkpoints = {
        number: _best_checkpoint(record, number) for number in models if isinstance(number, int)
    }
    trials = _load_all(record, checkpoints)
    clips = {
        baseline: LoadedModel(frozen_clip(baseline.backbone, baseline.num_frames), data)
        for baseline, data in baselines.items()
        if baseline in models or benchmark.alphas
    }
    blends = {
        Blended(number, alpha): replace(
            loaded, clip=clips[Baseline.of(record.trial(number).info.train)].model, alpha=alpha
        )
        for number, loaded in trials.items()
        for alpha in benchmark.alphas
    }
    new_clips = {baseline: clip for baseline, clip in clips.items() if baseline in models}
    splits = score_models({**trials, **new_clips, **blends}, benchmark)
    duration_s = (time.perf_counter() - started) / len(models)
    return {
        model: BenchmarkScore(
            benchmark=benchmark,
            checkpoint=checkpoints[model] if isinstance(model, int) else None,
            baseline=model if isinstance(model, Baseline) else None,
            splits=splits[model],
            metrics=benchmark.summarize(splits[model]),
            blends=tuple(
                BlendScore(alpha=key.alpha, metrics=benchmark.summarize(splits[key]))
                for key in blends
                if key.number == model
            ),
            scored_at=datetime.now(UTC),
            duration_s=duration_s,
        )
        for model in models
    }


def _best_checkpoint(record: StudyRecord, number: int) -> str:
    key = record.trial(number).best_checkpoint(record.objective)
    if key is None:
        raise InputError(
            f"study {record.name!r}, trial {number}: has no checkpoint to score; it must train "
            "first"
        )
    return key


def _load_all(record: StudyRecord, checkpoints: Mapping[int, str]) -> dict[int, LoadedModel]:
    """The models of checkpoints in the store; frozen weights are held in memory once."""
    loaded: dict[int, LoadedModel] = {}
    frozen: FrozenWeights = {}
    for number, key in checkpoints.items():
        with tempfile.TemporaryDirectory() as folder:
            record.store.download_folder(key, Path(folder))
            # how this machine reads the videos is the trial's own setting, which no checkpoint
            # brings
            loaded[number] = replace(
                load_checkpoint(Path(folder)), data=record.trial(number).info.train.data
            )
        loaded[number].model.share_frozen(frozen)
    return loaded


def load_checkpoint(folder: Path) -> LoadedModel:
    """The model of a checkpoint folder, on this process's device. Raises CheckpointError."""
    model, config = load_model(folder)
    return LoadedModel(model.placed_on(default_device()), config.data)


def score_models(
    models: Mapping[_Key, LoadedModel], benchmark: BenchmarkConfig
) -> dict[_Key, tuple[SplitScore, ...]]:
    """Scores on every split, one pass over the videos for all models that can share their clips."""
    groups: dict[tuple[object, ...], dict[_Key, LoadedModel]] = {}
    for key, model in models.items():
        groups.setdefault(model.clip_shape, {})[key] = model
    scores: dict[_Key, tuple[SplitScore, ...]] = dict.fromkeys(models, ())
    for split in benchmark.splits:
        for group in groups.values():
            for key, score in _score_split(group, benchmark, split).items():
                scores[key] += (score,)
    return scores


def _score_split(
    models: Mapping[_Key, LoadedModel], benchmark: BenchmarkConfig, split: str
) -> dict[_Key, SplitScore]:
    manifest = load_dataset(benchmark.dataset, split)
    texts = benchmark.class_texts(split)
    classifiers = [_classifier(loaded, manifest, texts) for loaded in models.values()]
    data = next(iter(models.values())).data
    scores = score_classifiers(classifiers, manifest, data, benchmark.views)
    identity = identify(manifest)
    return {
        key: _split_score(split, score, manifest, identity)
        for key, score in zip(models, scores, strict=True)
    }


def _classifier(loaded: LoadedModel, manifest: Manifest, texts: ClassTexts) -> Classifier:
    def classify(model: VideoModel) -> Classifier:
        if texts.learned and model.class_names:
            return supervised_classifier(model, manifest.classes)
        if texts.descriptions is not None:
            described = texts.descriptions.of(manifest.classes, manifest.name)
            return described_classifier(model, described)
        return zero_shot_classifier(model, manifest.classes, texts.templates)

    if loaded.clip is None:
        return classify(loaded.model)
    return blend(loaded.model, loaded.clip, loaded.alpha, classify)


def _split_score(split: str, score: Score, manifest: Manifest, data: DataIdentity) -> SplitScore:
    if not score.num_clips:
        raise InputError(
            f"split {split!r}: none of its {score.num_broken} clips can be read; check the "
            "dataset's folder"
        )
    return SplitScore(
        split=split,
        data=data,
        top1=score.top1,
        top5=score.top5,
        num_broken=score.num_broken,
        num_missing=len(manifest.missing),
        classes=score.classes,
        clips=tuple(p.clip for p in score.predictions),
        files=tuple(_file_number(manifest.clips[p.clip].path) for p in score.predictions),
        labels=tuple(p.label for p in score.predictions),
        ranked=tuple(p.ranked for p in score.predictions),
    )


def _file_number(path: str) -> int:
    """Tells a clip by its name and folder, wherever the dataset lies. 48 bits: JSON's numbers hold
    53.
    """
    name = "/".join(Path(path).parts[-2:])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
