"""``trial.json`` and ``result.json``: what was proposed, and how it ended."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from orchestrator.config import Benchmark, Scalar
from vitaclip.checkpoint_info import History
from vitaclip.config import Config, TrainConfig


class TrialInfo(Config):
    """``trial.json``: one proposed point with its complete training config."""

    number: int
    params: dict[str, Scalar]
    train: TrainConfig
    thresholds: dict[int, float] = Field(
        {}, description="epoch -> objective to have reached by then, or stop"
    )
    judged_epochs: tuple[int, ...] = Field(
        (), description="epochs after which the driver decides whether the trial goes on"
    )
    parent: int | None = Field(None, description="pbt: the trial whose end this one goes on from")
    stop_epoch: int | None = Field(None, description="pbt: the last epoch, instead of train.epochs")
    proposed_at: AwareDatetime

    @model_validator(mode="before")
    @classmethod
    def _as_version_0_1_wrote_it(cls, values: Any) -> Any:
        """Thresholds were called ``bar``."""
        if isinstance(values, dict) and "bar" in values and "thresholds" not in values:
            return {"thresholds" if name == "bar" else name: v for name, v in values.items()}
        return values

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
    protocols: tuple[Benchmark, ...] = Field(
        (), description="those that benchmarks was computed by"
    )
    proposed_at: AwareDatetime
    finished_at: AwareDatetime
    durations: dict[str, float] = Field({}, description="seconds, e.g. train_s, benchmarks_s")
    code: tuple[str, ...] = Field((), description="versions of the code that worked on it")
