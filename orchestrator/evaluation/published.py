"""Figures that others printed, a row each in ``published.csv``: what a study's results are set
beside. None was measured here.

A cell that is empty is not known: the source does not say.
"""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from vitaclip.config import Config, DataConfig, EvalConfig, SplitName, describe
from vitaclip.errors import InputError

TABLE = Path(__file__).with_suffix(".csv")
WHOLE = "all"  # instead of splits: all videos of the data set

_Text = TypeVar("_Text", bound=str)
Percent = Annotated[float, Field(ge=0, le=100)]
Splits = Annotated[tuple[SplitName, ...], BeforeValidator(str.split)]


def _views(text: _Text) -> _Text:
    try:
        EvalConfig.parse(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text


class PublishedFigure(Config):
    """One accuracy, as a paper or its repository prints it."""

    method: str = Field(min_length=1, description="and after a comma, its variant")
    benchmark: str = Field(pattern=r"^[a-z_]+/[a-z0-9]+$", description="as a study names it")
    metric: Literal["top1", "base_top1", "novel_top1"] = Field(
        description="as a study names it: top1 of base_to_novel is the harmonic mean"
    )
    percent: Percent
    spread: Percent | None = Field(None, description="the ± behind it")
    origin: Literal["own", "quoted", "rerun"] = Field(
        description="printed by the method's authors, quoted elsewhere, or measured by others"
    )
    source: str = Field(min_length=1, description="where it was read")
    trained_on: str | None = Field(None, description="None: nothing")
    splits: Splits = Field((), description="that were scored, as a study names them")
    backbone: str = Field(description="open_clip's name of the CLIP, and its weights")
    frames: str | None = Field(
        None, pattern=r"^[0-9]+(/[0-9]+)?$", description="of a clip; 8/32 where the source says so"
    )
    sampling: str | None = Field(None, pattern=r"^(uniform|dense [0-9]+)$")
    image_size: int | None = None
    views: Annotated[str, AfterValidator(_views)] | None = Field(
        None, description="temporal x spatial"
    )
    texts: str | None = Field(
        None,
        description="names: plain; learned: with the learned context; a sentence with {} for the "
        "name; kinetics700: CLIP's 28 sentences; or in words",
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    notes: str = ""

    @property
    def key(self) -> str:
        """The method as an option spells it: ``vita_clip``."""
        return re.sub(r"[^a-z0-9]+", "_", self.method.lower())

    @property
    def printed(self) -> str:
        """As tables print it: ``48.6 ± 0.6``."""
        return f"{self.percent:.1f}" + ("" if self.spread is None else f" ± {self.spread:.1f}")

    @property
    def as_fraction(self) -> str:
        """As accuracies are printed here: ``0.486 ± 0.006``."""
        spread = "" if self.spread is None else f" ± {self.spread / 100:.3f}"
        return f"{self.percent / 100:.3f}{spread}"

    @property
    def circumstances(self) -> str:
        """What tells it from other figures of the benchmark: ``8 frames, 4x3 views``."""
        known = {f"{self.frames} frames": self.frames, f"{self.views} views": self.views}
        words = [text for text, value in known.items() if value]
        if self.splits == (WHOLE,):
            words.append("all videos")
        if self.benchmark.startswith("supervised/") and "few_shot" in (self.trained_on or ""):
            words.append(f"trained on {self.trained_on}")
        return ", ".join(words)


@functools.cache
def read_published(table: Path = TABLE) -> tuple[PublishedFigure, ...]:
    """All figures, in the table's order. Raises InputError for a row that cannot be read."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, restkey="a cell too many", strict=True)
        return tuple(_figure(row, f"{table.name}, line {rows.line_num}") for row in rows)


def training_split(data: DataConfig) -> str:
    """What a training is of, as the table spells it: ``kinetics400/train``."""
    return f"{data.dataset}/{data.train_split}"


def figures_beside(benchmark: str, data: DataConfig) -> dict[str, list[PublishedFigure]]:
    """By method, the figures to set a benchmark's accuracies beside: none of a method's variants,
    and none of splits that a study cannot score.

    Args:
        benchmark: its name, such as ``zero_shot/hmdb51``.
        data: of the training that was scored. Figures of the same training are taken, or all where
            there is none.
    """
    trained_on = training_split(data)
    found = [
        figure
        for figure in read_published()
        if (figure.benchmark, figure.metric) == (benchmark, "top1")
        and "," not in figure.method
        and figure.splits != (WHOLE,)
    ]
    if any(figure.trained_on == trained_on for figure in found):
        found = [figure for figure in found if figure.trained_on in (None, trained_on)]
    methods: dict[str, list[PublishedFigure]] = {}
    for figure in found:
        methods.setdefault(figure.method, []).append(figure)
    return methods


def _figure(row: dict[str, str], place: str) -> PublishedFigure:
    try:
        return PublishedFigure.model_validate({key: cell for key, cell in row.items() if cell})
    except ValidationError as error:
        raise InputError(f"{place}: {describe(error)}") from error
