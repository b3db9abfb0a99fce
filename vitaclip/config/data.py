"""Which videos are read, and how they become clips."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from vitaclip.config.base import Config, DatasetName, Fraction, SplitName
from vitaclip.errors import InputError

BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]
Ratio = Annotated[float, Field(gt=0, le=100)]


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
    train_split: SplitName = Field(
        "train", description="The split to train on, such as few_shot_16 or base_train_1."
    )
    val_split: SplitName = Field(
        "val",
        description="The split of the same classes that is scored after every epoch, and gives "
        "the metrics val/...",
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

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that a training reads."""
        return (self.train_split, *self.scored_splits)

    @property
    def scored_splits(self) -> tuple[str, ...]:
        """Those that every epoch is scored on."""
        return (self.val_split, self.development) if self.development else (self.val_split,)


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
                "temporal and 1 or 3 spatial views, such as 4x3"
            )
        return cls.model_validate(
            {"num_temporal_views": int(found[1]), "num_spatial_views": int(found[2])}
        )
