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
        description="The model's name as open_clip spells it, or 'quickstart-tiny'.",
    )
    pretrained: str = Field(
        "openai",
        max_length=4096,
        description="The weights: a tag of open_clip's, a local file, or 'random' for tests.",
    )
    image_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="The width and height of frames in pixels. None takes the size that the "
        "weights were trained at.",
    )


class PromptConfig(Config):
    """Visual prompts (paper section 3.2). A count of 0, or False, switches a kind off."""

    num_global: int = Field(
        8,
        ge=0,
        le=1024,
        description="How many learned video-level prompts each layer gets. 0 switches this kind "
        "off.",
    )
    local: bool = Field(
        True,
        description="Whether each frame brings a prompt of its own, made from its class token.",
    )
    summary: bool = Field(
        True,
        description="Whether each frame has a summary token, computed by attention across all "
        "frames.",
    )
    depth: Layer | None = Field(
        None,
        description="How many layers carry visual prompts, counted from the first. None means all "
        "layers.",
    )
    global_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry global prompts, instead of those that "
        "depth names.",
    )
    local_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry local prompts, instead of those that "
        "depth names.",
    )
    summary_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry the summary token, instead of those that "
        "depth names.",
    )
    time_embedding: bool = Field(
        True,
        description="Whether a learned embedding of its time is added to every token of a frame.",
    )
    cls_proj: Literal["paper", "released"] = Field(
        "paper",
        description="Whether P_sum, the summary's projection, is trained as in the paper, or stays "
        "at its initialization as in the released code.",
    )


class TextConfig(Config):
    """Text prompts (paper section 3.3): learned context vectors around the class name."""

    num_context: int = Field(
        8,
        ge=0,
        le=70,
        description="How many learned context vectors stand beside a class name. 0 leaves the "
        "plain name.",
    )
    class_specific: bool = Field(
        True,
        description="Whether each class learns a context of its own (CSC). Otherwise all share one "
        "(unified, UC).",
    )
    position: Literal["end", "middle", "front"] = Field(
        "end", description="Where the class name stands among the context vectors."
    )
    init: str | None = Field(
        None,
        max_length=1000,
        description="Words whose embeddings start the context, such as 'a video of'. None starts "
        "it at random.",
    )
    depth: int = Field(
        1,
        ge=1,
        le=1000,
        description="How many text layers get a context of their own, as in MaPLe. 1 means the "
        "input only.",
    )


class AugmentConfig(Config):
    """Training augmentation, with the same parameters for every frame of a clip (torchvision
    transforms v2).
    """

    rand_augment: Annotated[str, Field(pattern="^m[0-9]{1,2}-n[0-9]{1,2}$")] | None = Field(
        "m7-n4",
        description="RandAugment's magnitude (0 to 10) and number of operations, such as m7-n4. "
        "None switches it off.",
    )
    random_resized_crop: tuple[Fraction, Fraction] | None = Field(
        (0.08, 1.0),
        description="The smallest and largest share of the area that a crop keeps. None switches "
        "cropping off.",
    )
    aspect_ratio: tuple[Ratio, Ratio] = Field(
        (3 / 4, 4 / 3), description="The smallest and largest ratio of width to height of a crop."
    )
    horizontal_flip: Fraction = Field(
        0.0,
        description="How probably a clip is mirrored. Keep 0 where left and right matter, as in "
        "SSv2.",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=10,
        description="How strongly brightness, contrast and saturation vary. 0 switches it off.",
    )


class DataConfig(Config):
    """Which videos, and how a clip is drawn from each."""

    dataset: DatasetName = Field(
        "quickstart",
        description="The dataset's name. The variable VITACLIP_DATA_<NAME> says where it lies.",
    )
    development: SplitName | None = Field(
        None,
        description="A split of classes that are never trained on. It is scored zero-shot after "
        "every epoch.",
    )
    num_frames: int = Field(8, ge=1, le=1024, description="How many frames a clip has.")
    sampling: Literal["dense", "uniform"] = Field(
        "dense",
        description="How a clip's frames are drawn: at a fixed stride (dense), or one from each of "
        "as many equal segments (uniform, TSN).",
    )
    stride: int = Field(
        16,
        ge=1,
        le=100000,
        description="How many frames of the video lie between two frames of a dense clip.",
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="How training clips are varied.")
    decoder: Literal["auto", "decord", "pyav"] = Field(
        "auto",
        description="The library that decodes videos. 'auto' takes the one that is right for every "
        "file.",
    )
    num_workers: int = Field(
        0,
        ge=0,
        le=256,
        description="How many processes decode for each training worker. 0 decodes in the training "
        "process.",
    )
    max_broken: Fraction = Field(
        0.01, description="The share of clips that may be unreadable. The run fails once more are."
    )
    limit: PositiveInt | None = Field(
        None,
        le=10**9,
        description="How many clips of a seeded shuffle are used, for tests. None uses all.",
    )


class EvalConfig(Config):
    """How a validation or benchmark clip is viewed: temporal x spatial views, softmax averaged."""

    num_temporal_views: int = Field(
        1, ge=1, le=1000, description="How many clips at different times are drawn from each video."
    )
    num_spatial_views: Literal[1, 3] = Field(
        1,
        description="How many crops are taken of each clip: the center, or three along the longer "
        "side.",
    )
    batch_size: BatchSize = Field(32, description="How many videos are scored at once.")

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

    lr: float = Field(0.0004, gt=0, description="The learning rate after warm-up.")
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


MethodName = Literal["vita_clip", "frozen_clip"]  # vitaclip/methods


class TrainConfig(Config):
    """One training run, complete: the same config and seed give the same result."""

    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="The seed of everything random in a training."
    )
    method: MethodName = Field(
        "vita_clip",
        description="How CLIP is adapted to video. 'frozen_clip' leaves it as it is, and takes 0 "
        "epochs.",
    )
    backbone: BackboneConfig = Field(BackboneConfig(), description="The frozen CLIP.")
    prompts: PromptConfig = Field(PromptConfig(), description="The visual prompts.")
    text: TextConfig = Field(TextConfig(), description="The text prompts.")
    data: DataConfig = Field(
        DataConfig(), description="Which videos, and how a clip is drawn from each."
    )
    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="How the prompts are optimized."
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
    precision: Precision = Field(
        "fp32",
        description="The precision of matrix products. 'mixed' is bf16 where the hardware has it, "
        "else fp16 on a GPU.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Whether each vision layer is computed again in the backward pass: less "
        "memory, more time.",
    )
    compile: bool = Field(
        False,
        description="Whether layers are compiled. This takes over a minute at first and makes "
        "steps faster: for long runs.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="How many CPU threads a worker uses. None takes PyTorch's default.",
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
            method=self.method,
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
