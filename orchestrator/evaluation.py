"""The benchmark stage: scores of trials' best checkpoints, computed once and kept in the study's record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.config import BenchmarkConfig
from orchestrator.records import BASELINE, BenchmarkScore, SplitScore, StudyRecord
from orchestrator.statistics import bootstrap_interval, mean_and_std
from vitaclip.checkpoint import load_model
from vitaclip.config import DataConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.distributed import default_device
from vitaclip.errors import InputError
from vitaclip.evaluate import Score, candidate, evaluate, frozen_clip
from vitaclip.model.vita_clip import VitaCLIP


def score_trials(
    record: StudyRecord, numbers: Sequence[int], benchmark: BenchmarkConfig
) -> dict[int, BenchmarkScore]:
    """Scores of several trials, each video decoded once for all of them.

    What was scored by this protocol before is read, not computed. The frozen CLIP itself (``BASELINE``) is
    scored in the same pass, so that each table can show what the prompts gained.
    """
    scores = {number: _known_score(record, number, benchmark) for number in numbers}
    missing = [number for number, score in scores.items() if score is None]
    if missing:
        wanted = [BASELINE, *missing] if _known_score(record, BASELINE, benchmark) is None else missing
        for score_of, score in _compute(record, wanted, benchmark).items():
            record.write_score(score_of, score)
            scores[score_of] = score
    return {number: score for number, score in scores.items() if score is not None and number in numbers}


def _known_score(record: StudyRecord, number: int, benchmark: BenchmarkConfig) -> BenchmarkScore | None:
    score = record.read_score(number, benchmark)
    if score is None or number == BASELINE or score.checkpoint == record.best_checkpoint(number):
        return score
    return None


def _compute(
    record: StudyRecord, numbers: Sequence[int], benchmark: BenchmarkConfig
) -> dict[int, BenchmarkScore]:
    started = time.perf_counter()
    checkpoints = {number: _best_checkpoint(record, number) for number in numbers}
    models = {number: _load(record, checkpoints[number]) for number in numbers if number != BASELINE}
    data = _shared_data_config([config for _, config in models.values()])
    candidates = {number: model for number, (model, _) in models.items()}
    if BASELINE in numbers:
        candidates[BASELINE] = frozen_clip(record.info.config.train.backbone, data.num_frames)
    splits = [_score_split(candidates, data, benchmark, split) for split in benchmark.splits]
    return {
        number: BenchmarkScore(
            benchmark=benchmark,
            checkpoint=checkpoints[number],
            splits=tuple(by_number[number] for by_number in splits),
            metrics=summarise(benchmark, [by_number[number] for by_number in splits]),
            scored_at=datetime.now(UTC),
            duration_s=time.perf_counter() - started,
        )
        for number in numbers
    }


def _best_checkpoint(record: StudyRecord, number: int) -> str:
    if number == BASELINE:
        return "frozen CLIP"
    key = record.best_checkpoint(number)
    if key is None:
        raise InputError(
            f"study {record.name!r}, trial {number}: has no checkpoint to score; it must train first"
        )
    return key


def _load(record: StudyRecord, key: str) -> tuple[VitaCLIP, DataConfig]:
    with tempfile.TemporaryDirectory() as folder:
        record.store.download_folder(key, Path(folder))
        model, config = load_model(Path(folder))
    return model.to(default_device()), config.data


def _shared_data_config(configs: Iterable[DataConfig]) -> DataConfig:
    first, *others = configs
    for other in others:
        if (other.num_frames, other.sampling, other.stride) != (
            first.num_frames,
            first.sampling,
            first.stride,
        ):
            raise InputError(
                "trials scored in one pass must share num_frames, sampling and stride; score them singly"
            )
    return first


def _score_split(
    models: dict[int, VitaCLIP], data: DataConfig, benchmark: BenchmarkConfig, split: str
) -> dict[int, SplitScore]:
    manifest = load_dataset(benchmark.dataset, split)
    candidates = [
        candidate(model, manifest.classes, "zero_shot" if number == BASELINE else benchmark.mode)
        for number, model in models.items()
    ]
    scores = evaluate(candidates, manifest, data, benchmark.views)
    return {number: _split_score(split, score) for number, score in zip(models, scores, strict=True)}


def _split_score(split: str, score: Score) -> SplitScore:
    if not score.num_clips:
        raise InputError(
            f"split {split!r}: none of its {score.num_broken} clips can be read; check the dataset's folder"
        )
    return SplitScore(
        split=split,
        top1=score.top1,
        top5=score.top5,
        num_broken=score.num_broken,
        classes=score.classes,
        clips=tuple(p.clip for p in score.predictions),
        labels=tuple(p.label for p in score.predictions),
        ranked=tuple(p.ranked for p in score.predictions),
    )


def summarise(benchmark: BenchmarkConfig, splits: Sequence[SplitScore]) -> dict[str, float]:
    """A benchmark's metrics: means over its splits; top-1's spread over them and 95% interval over clips."""
    top1, top1_std = mean_and_std([split.top1 for split in splits])
    interval = bootstrap_interval(
        [sum(split.correct.values()) for split in splits], [len(split.clips) for split in splits]
    )
    metrics = {
        "top1": top1,
        "top5": mean_and_std([split.top5 for split in splits])[0],
        "top1_ci95_low": interval.low,
        "top1_ci95_high": interval.high,
        "num_clips": sum(len(split.clips) for split in splits),
        "num_broken": sum(split.num_broken for split in splits),
    }
    if len(splits) > 1:
        metrics["top1_std"] = top1_std
    return {f"{benchmark.name}/{key}": value for key, value in metrics.items()}
