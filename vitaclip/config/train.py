"""One training run, complete."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vitaclip.config.base import Config, Fraction
from vitaclip.config.data import BatchSize, DataConfig, EvalConfig
from vitaclip.config.model import ModelConfig
from vitaclip.score import DEVELOPMENT_METRICS, VALIDATION_METRICS


class OptimizerConfig(Config):
    """AdamW with a cosine schedule (paper section 4.1; released recipe)."""

    lr: float = Field(0.0004, gt=0, description="The learning rate after warm-up.")
    clip_lr_scale: float = Field(
        1.0,
        gt=0,
        description="By how much the learning rate is multiplied for CLIP's own weights, where a "
        "method trains them.",
    )
    weight_decay: float = Field(0.05, ge=0, description="AdamW's weight decay.")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), description="AdamW's decay rates of its two running means."
    )
    lr_schedule: Literal["cosine", "constant"] = Field(
        "cosine",
        description="How the learning rate goes on after warm-up: down to 0 along a cosine, or "
        "constant.",
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        le=10**9,
        description="Over how many optimizer steps the learning rate rises from 0.",
    )
    clip_grad_norm: float | None = Field(
        None,
        gt=0,
        description="The norm to which larger gradients are scaled down. None leaves them as they "
        "are.",
    )


class TrainConfig(ModelConfig):
    """One training run, complete: the same config and seed give the same result."""

    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="How what is learned is optimized."
    )
    validation: EvalConfig = Field(EvalConfig(), description="How validation clips are viewed.")
    epochs: int = Field(
        30,
        ge=0,
        le=3000,
        description="How many times the training clips are gone through. 0 only validates.",
    )
    batch_size: BatchSize = Field(
        256, description="How many clips make one optimizer step, over all workers."
    )
    micro_batch_size: BatchSize | None = Field(
        None,
        description="How many clips a worker passes through the model at once. None passes all of "
        "its share.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="How many CPU threads a worker uses. None takes PyTorch's default.",
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every epoch reports (:func:`vitaclip.train.fit` says what they
        are).
        """
        names = ["epoch", *VALIDATION_METRICS, "time/epoch_s", "time/validation_s"]
        if self.epochs:
            loading = ("time/data_wait_s", "time/cache_hit_rate")
            names += ["train/loss", "lr", "data/broken", "time/clips_per_s", *loading]
        if self.data.development is not None:
            names += DEVELOPMENT_METRICS
        return tuple(names)

    def of_model(self) -> TrainConfig:
        """What decides the model, and how clips are drawn for it. How a machine is used is left at
        its default.
        """
        drawn = ("num_frames", "sampling", "stride", "max_broken")
        data = DataConfig(**{name: getattr(self.data, name) for name in drawn})
        decisive = ModelConfig.model_fields.keys() - {"data", "activation_checkpointing", "compile"}
        values = {name: getattr(self, name) for name in decisive}
        return TrainConfig(data=data, **values)
