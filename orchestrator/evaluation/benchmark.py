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
from typing import TypeVar, cast

import torch
from torch.nn import functional as F

from orchestrator.config import BenchmarkConfig, ClipTemplates
from orchestrator.evaluation.statistics import accuracy_interval, mean_and_std, outcomes
from orchestrator.storage.records.score import Baseline, BenchmarkScore, Contender, SplitScore
from orchestrator.storage.study_record import StudyRecord
from vitaclip.checkpoint import load_model
from vitaclip.class_names import clean_class_name
from vitaclip.config import DataConfig
from vitaclip.data.datasets import CLASS_LISTS, load_dataset
from vitaclip.data.identity import DataIdentity, identify
from vitaclip.data.manifest import Manifest, read_class_list
from vitaclip.distributed import default_device
from vitaclip.errors import InputError
from vitaclip.evaluation import Candidate, Score, candidate, evaluate, frozen_clip
from vitaclip.model.vita_clip import VitaCLIP

_Key = TypeVar("_Key")  # of a contestant
TEMPLATES = CLASS_LISTS.with_name("templates")

# How the published datasets are scored where a command names only the dataset.
PROTOCOLS = {
    benchmark.dataset: benchmark
    for benchmark in (
        BenchmarkConfig(dataset="hmdb51", split=("test_1", "test_2", "test_3"), mode="zero_shot"),
        BenchmarkConfig(dataset="ucf101", split=("test_1", "test_2", "test_3"), mode="zero_shot"),
        BenchmarkConfig(
            dataset="kinetics600",
            split=("zero_shot_1", "zero_shot_2", "zero_shot_3"),
            mode="zero_shot",
        ),
        BenchmarkConfig(dataset="kinetics400", split="val", mode="supervised"),
        BenchmarkConfig(dataset="ssv2", split="val", mode="supervised"),
        BenchmarkConfig(dataset="quickstart", split="zero_shot", mode="zero_shot"),
    )
}


@dataclass(frozen=True)
class Contestant:
    """A model to score, and how clips must be drawn for it."""

    model: VitaCLIP
    data: DataConfig
    only_names: bool = False  # the frozen CLIP has learned no classes: it always reads their names

    @property
    def clip_shape(self) -> tuple[object, ...]:
        """Models that agree in this can share decoded clips."""
        size = self.model.clip.visual.image_size[0]
        return (self.data.num_frames, self.data.sampling, self.data.stride, size)


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
    contenders: list[Contender] = [*numbers, *baselines]
    scores = {one: _known_score(record, one, benchmark) for one in contenders}
    missing = [one for one, score in scores.items() if score is None]
    if missing:
        _check_data(record, benchmark, [score for score in scores.values() if score])
        new = _compute(record, missing, baselines, benchmark)
        for one in missing:
            record.scores(one).write(new[one])
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
        before = [one.data for score in known for one in score.splits if one.split == split]
        if name in record.info.inputs.data:
            before.append(record.info.inputs.data[name])
        now = identify(load_dataset(benchmark.dataset, split))
        if differing := next((found for one in before if (found := one.differences(now))), None):
            raise InputError(
                f"study {record.name!r} was scored or started on other data of {name}: "
                f"{'; '.join(differing)}; restore "
                "it, or give the dataset another name (VITACLIP_DATA_<NAME>) and score all trials "
                "on that"
            )


def _known_score(
    record: StudyRecord, contender: Contender, benchmark: BenchmarkConfig
) -> BenchmarkScore | None:
    score = record.scores(contender).read(benchmark)
    if (
        score is None
        or score.baseline
        or score.checkpoint == record.trial(cast(int, contender)).best_checkpoint(record.objective)
    ):
        return score
    return None


def _compute(
    record: StudyRecord,
    contenders: Sequence[Contender],
    baselines: Mapping[Baseline, DataConfig],
    benchmark: BenchmarkConfig,
) -> dict[Contender, BenchmarkScore]:
    started = time.perf_counter()
    checkpoints = {one: _best_checkpoint(record, one) for one in contenders if isinstance(one, int)}
    contestants: dict[Contender, Contestant] = dict(_load_all(record, checkpoints).items())
    for one in contenders:
        if isinstance(one, Baseline):
            clip = frozen_clip(one.backbone, one.num_frames)
            contestants[one] = Contestant(clip, baselines[one], only_names=True)
    splits = score_contestants(contestants, benchmark)
    duration_s = (time.perf_counter() - started) / len(contenders)
    return {
        one: BenchmarkScore(
            benchmark=benchmark,
            checkpoint=checkpoints[one] if isinstance(one, int) else None,
            baseline=one if isinstance(one, Baseline) else None,
            splits=splits[one],
            metrics=summarise(benchmark, splits[one]),
            scored_at=datetime.now(UTC),
            duration_s=duration_s,
        )
        for one in contenders
    }


def _best_checkpoint(record: StudyRecord, number: int) -> str:
    key = record.trial(number).best_checkpoint(record.objective)
    if key is None:
        raise InputError(
            f"study {record.name!r}, trial {number}: has no checkpoint to score; it must train "
            "first"
        )
    return key


def _load_all(record: StudyRecord, checkpoints: Mapping[int, str]) -> dict[int, Contestant]:
    """The models of checkpoints in the store; equal backbones are held in memory once."""
    contestants: dict[int, Contestant] = {}
    backbones: dict[str, VitaCLIP] = {}
    for number, key in checkpoints.items():
        with tempfile.TemporaryDirectory() as folder:
            record.store.download_folder(key, Path(folder))
            # how this machine reads the videos is the trial's own setting, which no checkpoint
            # brings
            contestants[number] = replace(
                load_contestant(Path(folder)), data=record.trial(number).info.train.data
            )
        model = contestants[number].model
        model.clip = backbones.setdefault(model.backbone_sha256, model).clip
    return contestants


def load_contestant(checkpoint: Path) -> Contestant:
    """The model of a checkpoint folder, on this process's device. Raises CheckpointError."""
    model, config = load_model(checkpoint)
    return Contestant(model.to(default_device()), config.data)


def score_contestants(
    contestants: Mapping[_Key, Contestant], benchmark: BenchmarkConfig
) -> dict[_Key, tuple[SplitScore, ...]]:
    """Scores on every split, one pass over the videos for all contestants that can share their
    clips.
    """
    groups: dict[tuple[object, ...], dict[_Key, Contestant]] = {}
    for number, contestant in contestants.items():
        groups.setdefault(contestant.clip_shape, {})[number] = contestant
    scores: dict[_Key, tuple[SplitScore, ...]] = dict.fromkeys(contestants, ())
    for split in benchmark.splits:
        for group in groups.values():
            for number, score in _score_split(group, benchmark, split).items():
                scores[number] += (score,)
    return scores


def _score_split(
    contestants: Mapping[_Key, Contestant], benchmark: BenchmarkConfig, split: str
) -> dict[_Key, SplitScore]:
    manifest = load_dataset(benchmark.dataset, split)
    candidates = [_candidate(one, manifest.classes, benchmark) for one in contestants.values()]
    data = next(iter(contestants.values())).data
    scores = evaluate(candidates, manifest, data, benchmark.views)
    identity = identify(manifest)
    return {
        number: _split_score(split, score, manifest, identity)
        for number, score in zip(contestants, scores, strict=True)
    }


def _candidate(one: Contestant, classes: Sequence[str], benchmark: BenchmarkConfig) -> Candidate:
    if benchmark.mode == "supervised" and not one.only_names:
        return candidate(one.model, classes, "supervised")
    if benchmark.templates:
        return Candidate(
            one.model, ensemble_names(one.model, classes, sentences(benchmark.templates))
        )
    return candidate(one.model, classes, "zero_shot")


def sentences(templates: ClipTemplates | tuple[str, ...]) -> tuple[str, ...]:
    """The templates themselves; those of CLIP's paper by the name of the data set it wrote them
    for.
    """
    return (
        read_class_list(TEMPLATES / f"{templates}.txt") if isinstance(templates, str) else templates
    )


@torch.no_grad()
def ensemble_names(
    model: VitaCLIP, classes: Sequence[str], templates: Sequence[str]
) -> torch.Tensor:
    """Text features ``[C, E]``: the mean over templates of the normalised features, as CLIP's
    ensembles do.
    """
    names = [clean_class_name(name) for name in classes]
    features = [
        model.encode_names([template.replace("{}", name) for name in names])
        for template in templates
    ]
    return torch.stack([F.normalize(one.float(), dim=-1) for one in features]).mean(dim=0)


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


def summarise(benchmark: BenchmarkConfig, splits: Sequence[SplitScore]) -> dict[str, float]:
    """A benchmark's metrics: means over its splits; top-1's spread over them and 95% interval over
    clips.
    """
    top1, top1_std = mean_and_std([split.top1 for split in splits])
    interval = accuracy_interval([outcomes(split) for split in splits])
    metrics = {
        "top1": top1,
        "top5": mean_and_std([split.top5 for split in splits])[0],
        "top1_ci95_low": interval.low,
        "top1_ci95_high": interval.high,
        "num_clips": sum(len(split.clips) for split in splits),
        "num_broken": sum(split.num_broken for split in splits),
        "num_missing": sum(split.num_missing for split in splits),
    }
    if len(splits) > 1:
        metrics["top1_std"] = top1_std
    return {f"{benchmark.name}/{key}": value for key, value in metrics.items()}
