"""What one training run is: a frozen, validated ``TrainConfig``.

An experiment's YAML holds these fields under ``train:``; a search space names them by dotted path
(``prompts.depth``, ``optimizer.lr``). Nothing here says where data, weights or results live.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from vitaclip.errors import InputError

MAX_DESCRIBED = 1000  # mistakes: to look at millions would take all memory
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16", "mixed"]
# They become folders, metrics' names and parts of an environment variable.
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# Counts have limits far above what is of use, so that a slip or a foreign file cannot ask for all
# memory.
Layer = Annotated[int, Field(ge=0, le=1000)]
LayerRange = tuple[Layer, Layer]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
Ratio = Annotated[float, Field(gt=0, le=100)]


class Config(BaseModel):
    """Base of everything that comes from a file: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackboneConfig(Config):
    """The frozen CLIP: a model name and a weights tag as open_clip spells them, or a local weights
    file.
    """

    name: str = Field(
        "ViT-B-16-quickgelu",
        max_length=200,
        description="open_clip model name, or 'quickstart-tiny'",
    )
    pretrained: str = Field(
        "openai",
        max_length=4096,
        description="open_clip weights tag, a local file, or 'random' (tests)",
    )
    image_size: int | None = Field(
        None, ge=1, le=1024, description="pixels; None: the size the weights were trained at"
    )


class PromptConfig(Config):
    """Visual prompts (paper section 3.2). A count of 0, or False, switches a kind off."""

    num_global: int = Field(8, ge=0, le=1024, description="video-level prompts per layer")
    local: bool = Field(True, description="frame-level prompts, one per frame")
    summary: bool = Field(True, description="the summary token with its attention across frames")
    depth: Layer | None = Field(
        None, description="the first n layers carry visual prompts; None: all layers"
    )
    global_layers: LayerRange | None = Field(
        None, description="[first, stop) for this kind, instead of depth"
    )
    local_layers: LayerRange | None = None
    summary_layers: LayerRange | None = None
    time_embedding: bool = Field(
        True, description="learned embedding added to every token of frame t"
    )
    cls_proj: Literal["paper", "released"] = Field(
        "paper",
        description="P_sum: trained as in the paper, or frozen at its initialisation as in the "
        "released code",
    )


class TextConfig(Config):
    """Text prompts (paper section 3.3): learned context vectors around the class name."""

    num_context: int = Field(8, ge=0, le=70, description="context vectors; 0: the plain class name")
    class_specific: bool = Field(
        True, description="one context per class (CSC), or one for all (unified, UC)"
    )
    position: Literal["end", "middle", "front"] = Field(
        "end", description="where the class name stands"
    )
    init: str | None = Field(
        None,
        max_length=1000,
        description="words whose embeddings start the context, e.g. 'a video of'",
    )
    depth: int = Field(
        1,
        ge=1,
        le=1000,
        description="text layers whose context is learned anew (1: the input only; MaPLe)",
    )


class AugmentConfig(Config):
    """Training augmentation, with the same parameters for every frame of a clip (torchvision
    transforms v2).
    """

    rand_augment: Annotated[str, Field(pattern=r"^m[0-9]{1,2}-n[0-9]{1,2}$")] | None = Field(
        "m7-n4", description="magnitude 0-10 and number of operations; None: off"
    )
    random_resized_crop: tuple[Fraction, Fraction] | None = Field(
        (0.08, 1.0), description="area range; None: off"
    )
    aspect_ratio: tuple[Ratio, Ratio] = (3 / 4, 4 / 3)
    horizontal_flip: Fraction = Field(
        0.0, description="probability; keep 0 where left and right matter (SSv2)"
    )
    color_jitter: float = Field(
        0.0, ge=0, le=10, description="strength for brightness, contrast and saturation"
    )


class DataConfig(Config):
    """Which videos, and how a clip is drawn from each."""

    dataset: DatasetName = Field(
        "quickstart", description="dataset name; where it lives comes from VITACLIP_DATA_<NAME>"
    )
    development: SplitName | None = Field(
        None, description="a split of classes never trained on; scored zero-shot after every epoch"
    )
    num_frames: int = Field(8, ge=1, le=1024)
    sampling: Literal["dense", "uniform"] = Field(
        "dense", description="fixed stride, or one frame per segment (TSN)"
    )
    stride: int = Field(
        16, ge=1, le=100_000, description="frames between two sampled frames of a dense clip"
    )
    augment: AugmentConfig = AugmentConfig()
    decoder: Literal["auto", "decord", "pyav"] = "auto"
    num_workers: int = Field(
        0,
        ge=0,
        le=256,
        description="decoding processes per training worker; 0: in the training process",
    )
    max_broken: Fraction = Field(
        0.01, description="the run fails once more than this share of clips is unreadable"
    )
    limit: PositiveInt | None = Field(
        None, le=10**9, description="use only the first n clips of a seeded shuffle (tests)"
    )


class EvalConfig(Config):
    """How a validation or benchmark clip is viewed: temporal x spatial views, softmax averaged."""

    num_temporal_views: int = Field(1, ge=1, le=1000)
    num_spatial_views: Literal[1, 3] = 1
    batch_size: BatchSize = 32

    @classmethod
    def parse(cls, text: str) -> EvalConfig:
        """``"4x3"``: four temporal views times three spatial ones. Raises InputError."""
        found = re.fullmatch(r"([1-9][0-9]{0,2})x([13])", text)
        if found is None:
            raise InputError(
                f"views: found {text[:80]!r}, allowed is TEMPORALxSPATIAL with at most 999 "
                "temporal and 1 or 3 spatial "
                "views, such as 4x3"
            )
        return cls.model_validate(
            {"num_temporal_views": int(found[1]), "num_spatial_views": int(found[2])}
        )


class OptimizerConfig(Config):
    """AdamW with a cosine schedule (paper section 4.1; released recipe)."""

    lr: float = Field(4e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(
        0, ge=0, le=10**9, description="linear warm-up, counted in optimiser steps"
    )
    clip_grad_norm: float | None = Field(None, gt=0)


class TrainConfig(Config):
    """One training run, complete: the same config and seed give the same result."""

    seed: int = Field(0, ge=0, le=2**32 - 1)
    backbone: BackboneConfig = BackboneConfig()
    prompts: PromptConfig = PromptConfig()
    text: TextConfig = TextConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    validation: EvalConfig = EvalConfig()
    epochs: int = Field(30, ge=0, le=3000)
    batch_size: BatchSize = Field(256, description="clips per optimiser step, over all workers")
    micro_batch_size: BatchSize | None = Field(
        None, description="clips per forward pass and worker; None: all at once"
    )
    precision: Precision = Field(
        "fp32",
        description="of matrix products; mixed: bf16 where the hardware has it, else fp16 on a GPU",
    )
    activation_checkpointing: bool = Field(
        False,
        description="recompute each vision layer in the backward pass: less memory, more time",
    )
    compile: bool = Field(
        False,
        description="torch.compile each layer: over a minute at first, then faster steps; for long "
        "runs",
    )
    num_threads: int | None = Field(
        None, ge=1, le=4096, description="CPU threads per worker; None: PyTorch's default"
    )

    @model_validator(mode="after")
    def _depth_and_ranges_agree(self) -> Self:
        for kind in ("global", "local", "summary"):
            layers = getattr(self.prompts, f"{kind}_layers")
            if layers is not None and layers[0] > layers[1]:
                raise ValueError(
                    f"prompts.{kind}_layers: found {list(layers)}, allowed [first, stop) with "
                    "first <= stop"
                )
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every epoch reports (:func:`vitaclip.train.fit` says what they
        are).
        """
        names = ["epoch", "val/top1", "val/top5", "val/loss", "val/broken", "time/epoch_s"]
        if self.epochs:
            loading = ("time/data_wait_s", "time/cache_hit_rate")
            names += ["train/loss", "lr", "data/broken", "time/clips_per_s", *loading]
        if self.data.development is not None:
            names += ["development/top1", "development/top5"]
        return tuple(names)

    def of_model(self) -> TrainConfig:
        """What decides the model, and how clips are drawn for it. How a machine is used is left at
        its default.
        """
        drawn = ("num_frames", "sampling", "stride", "max_broken")
        return TrainConfig(
            seed=self.seed,
            backbone=self.backbone,
            prompts=self.prompts,
            text=self.text,
            data=DataConfig(**{name: getattr(self.data, name) for name in drawn}),
            precision=self.precision,
        )


def describe(error: ValidationError) -> str:
    """The first mistake in a file, in one line: its field, what was found and what is allowed."""
    if error.error_count() > MAX_DESCRIBED:
        return f"{error.error_count()} of its values cannot be used"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return f"{place}: {first['msg']}, found {str(first['input'])[:80]!r}"
