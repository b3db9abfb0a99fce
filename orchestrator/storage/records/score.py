"""``scores/<benchmark>.json``: how well a trial, or the frozen CLIP, did on each clip."""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import AwareDatetime, Field, PositiveInt, model_validator

from orchestrator.config import Benchmark
from orchestrator.storage.records.split_score import SplitScore
from vitaclip.config import BackboneConfig, Config, TrainConfig
from vitaclip.config.base import Fraction


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
        pixels = self.backbone.image_size
        size = "" if pixels is None else f" at {pixels} pixels"
        stride = "" if self.stride is None else f", stride {self.stride}"
        return (
            f"frozen CLIP, {self.backbone.name}{size}, {self.num_frames} frames "
            f"{self.sampling}{stride}"
        )

    @property
    def key(self) -> str:
        """Its folder in the record."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return f"{self.num_frames}-{self.sampling}-{digest[:12]}"


class BlendScore(Config):
    """How well a blend of a trial with the frozen CLIP did."""

    alpha: Fraction = Field(description="the training's share")
    metrics: dict[str, float] = Field(description="as those of the trial itself")


class BenchmarkScore(Config):
    """``scores/<benchmark>.json``: a checkpoint's, or the frozen CLIP's, score on all splits of one
    benchmark.
    """

    benchmark: Benchmark
    checkpoint: str | None = Field(description="None: a baseline's")
    baseline: Baseline | None = Field(None, description="None: a trial's")
    splits: tuple[SplitScore, ...]
    metrics: dict[str, float]
    blends: tuple[BlendScore, ...] = Field((), description="a trial's, by alpha")
    scored_at: AwareDatetime
    duration_s: float

    @model_validator(mode="after")
    def _has_its_accuracy(self) -> Self:
        needed = f"{self.benchmark.name}/top1"
        if needed not in self.metrics:
            raise ValueError(f"metrics: found {sorted(self.metrics)[:5]}, needed is {needed}")
        return self


ScoredModel = int | Baseline  # what is scored: a trial, by its number, or the frozen CLIP
