"""The files of a study's record, as typed values; :mod:`orchestrator.storage.study_record` reads
and writes them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import AwareDatetime, Field, PositiveInt

from orchestrator.config import BenchmarkConfig, Objective, Scalar, StudyConfig
from vitaclip.checkpoint import History
from vitaclip.config import BackboneConfig, Config, TrainConfig
from vitaclip.data.identity import DataIdentity
from vitaclip.errors import InputError
from vitaclip.evaluate import confusion_matrix, per_class_top1


class StudyInputs(Config):
    """What a study reads: a later start on anything else is refused."""

    data: dict[str, DataIdentity] = Field({}, description="by dataset/split")
    backbones: dict[str, str] = Field({}, description="model and weights -> SHA-256 of all tensors")

    def differences(self, other: StudyInputs) -> list[str]:
        """In words, what ``other`` has under a name that is known here, but otherwise."""
        data = [
            f"dataset {name}: {text}"
            for name in sorted(self.data.keys() & other.data.keys())
            for text in self.data[name].differences(other.data[name])
        ]
        backbones = [
            f"backbone {name}: its weights are others ({self.backbones[name][:12]} was recorded, "
            f"found {other.backbones[name][:12]})"
            for name in sorted(self.backbones.keys() & other.backbones.keys())
            if self.backbones[name] != other.backbones[name]
        ]
        return data + backbones

    def joined(self, other: StudyInputs) -> StudyInputs:
        """Both, where the study has become larger."""
        return StudyInputs(data=self.data | other.data, backbones=self.backbones | other.backbones)


class StudyInfo(Config):
    """``study.json``."""

    id: str
    created_at: AwareDatetime
    config: StudyConfig
    config_hash: str
    provenance: dict[str, Scalar] = Field(
        description="of the first start; each attempt at a trial has its own code"
    )
    inputs: StudyInputs = StudyInputs()


class TrialRecord(Config):
    """``trial.json``: one proposed point with its complete training config."""

    number: int
    params: dict[str, Scalar]
    train: TrainConfig
    bar: dict[int, float] = Field(
        {}, description="epoch -> objective to have reached by then, or stop"
    )
    parent: int | None = Field(None, description="pbt: the trial whose end this one goes on from")
    stop_epoch: int | None = Field(None, description="pbt: the last epoch, instead of train.epochs")
    proposed_at: AwareDatetime

    @property
    def last_epoch(self) -> int:
        """The epoch after which it is complete."""
        return self.train.epochs if self.stop_epoch is None else self.stop_epoch


class TrialResult(Config):
    """``result.json``: how a trial ended. Metrics are fractions, losses or seconds, by epoch."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    reason: str | None = None
    params: dict[str, Scalar]
    values: tuple[float, ...] | None = Field(
        None, description="objectives at the best epoch; None: it failed"
    )
    metrics: dict[str, float] = Field({}, description="of the best epoch")
    history: History = ()
    best_epoch: int | None = None
    checkpoint: str | None = None
    benchmarks: dict[str, float] = Field({}, description="e.g. zero_shot/quickstart/top1")
    protocols: tuple[BenchmarkConfig, ...] = Field(
        (), description="those that benchmarks was computed by"
    )
    proposed_at: AwareDatetime
    finished_at: AwareDatetime
    durations: dict[str, float] = Field({}, description="seconds, e.g. train_s, benchmarks_s")
    code: tuple[str, ...] = Field((), description="versions of the code that worked on it")


class SplitScore(Config):
    """One split's score. ``clips`` are positions in the manifest; ``files``, ``labels``, ``ranked``
    belong to them.
    """

    split: str
    data: DataIdentity
    top1: float
    top5: float
    num_broken: int = Field(description="clips that could not be read; they are left out")
    num_missing: int = Field(
        0, description="clips that are annotated but have no file; they are left out"
    )
    classes: tuple[str, ...]
    clips: tuple[int, ...]
    files: tuple[int, ...] = Field(
        description="numbers of the clips' files, equal in every split that holds them"
    )
    labels: tuple[int, ...]
    ranked: tuple[tuple[int, ...], ...] = Field(
        description="the five most probable classes, best first"
    )

    @property
    def correct(self) -> dict[int, bool]:
        """Clip -> whether the most probable class was right."""
        rows = zip(self.clips, self.labels, self.ranked, strict=True)
        return {clip: label == best[0] for clip, label, best in rows}

    @property
    def confusion(self) -> np.ndarray:
        """``[C, C]`` counts; rows are true classes, columns predicted ones."""
        return confusion_matrix(self.labels, [best[0] for best in self.ranked], len(self.classes))

    @property
    def per_class_top1(self) -> dict[str, float]:
        """Accuracy of each class that has clips."""
        return per_class_top1(self.classes, self.confusion)


class Baseline(Config):
    """The frozen CLIP that a trial is compared with: its backbone without prompts, on clips drawn
    as for the trial.
    """

    backbone: BackboneConfig
    num_frames: PositiveInt
    sampling: Literal["dense", "uniform"]
    stride: PositiveInt | None = Field(description="None: the way of sampling knows no stride")

    @classmethod
    def of(cls, train: TrainConfig) -> Baseline:
        """That of a trial."""
        data = train.data
        stride = data.stride if data.sampling == "dense" else None
        return cls(
            backbone=train.backbone,
            num_frames=data.num_frames,
            sampling=data.sampling,
            stride=stride,
        )

    @property
    def name(self) -> str:
        """What tables call it."""
        stride = "" if self.stride is None else f", stride {self.stride}"
        return (
            f"frozen CLIP, {self.backbone.name}, {self.num_frames} frames {self.sampling}{stride}"
        )

    @property
    def key(self) -> str:
        """Its folder in the record."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.num_frames}-{self.sampling}-{digest[:12]}"


class BenchmarkScore(Config):
    """``scores/<benchmark>.json``: a checkpoint's, or the frozen CLIP's, score on all splits of one
    benchmark.
    """

    benchmark: BenchmarkConfig
    checkpoint: str | None = Field(description="None: a baseline's")
    baseline: Baseline | None = Field(None, description="None: a trial's")
    splits: tuple[SplitScore, ...]
    metrics: dict[str, float]
    scored_at: AwareDatetime
    duration_s: float


class ControlChange(Config):
    """``control/000001.json``: one change of a study that may be running
    (:mod:`orchestrator.control`).
    """

    paused: bool | None = Field(None, description="None: as before")
    num_trials: PositiveInt | None = Field(
        None, description="the number of trials from now on; None: as before"
    )
    points: tuple[dict[str, Scalar], ...] = Field(
        (), description="points to try as soon as possible"
    )


@dataclass(frozen=True)
class Control:
    """What all changes of a study together say."""

    num_trials: int
    paused: bool = False
    points: tuple[dict[str, Scalar], ...] = ()

    @classmethod
    def of(cls, config: StudyConfig, changes: Iterable[ControlChange]) -> Control:
        """The latest word on each matter, oldest change first; points add up."""
        control = cls(config.search.num_trials)
        for change in changes:
            control = cls(
                change.num_trials or control.num_trials,
                control.paused if change.paused is None else change.paused,
                control.points + change.points,
            )
        return control


def best_epoch(history: Sequence[Mapping[str, float]], objective: Objective) -> int:
    """The epoch with the best objective. Raises InputError as :func:`best_epochs` does."""
    return best_epochs(history, objective)[0]


def best_epochs(history: Sequence[Mapping[str, float]], objective: Objective) -> list[int]:
    """Epochs by their objective, best first; the earliest of equals first; those with NaN are left
    out.

    Raises:
        InputError: no epoch reported the objective's metric.
    """
    known = [
        metrics for metrics in history if not math.isnan(metrics.get(objective.metric, math.nan))
    ]
    if not known:
        found = ", ".join(sorted(history[-1])) if history else "no epoch"
        raise InputError(
            f"objective {objective.metric!r}: found {found}; name one of the metrics of training"
        )
    sign = -1 if objective.mode == "max" else 1
    return [int(m["epoch"]) for m in sorted(known, key=lambda m: sign * m[objective.metric])]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
