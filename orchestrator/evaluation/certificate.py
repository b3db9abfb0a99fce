"""A reproduction certificate: a checkpoint scored as a paper says, figure by figure, with whatever
is not as published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from pydantic import TypeAdapter, ValidationError

from orchestrator.config import Benchmark
from orchestrator.evaluation.benchmark import (
    PUBLISHED_BENCHMARKS,
    LoadedModel,
    load_checkpoint,
    score_models,
)
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClipTemplates
from orchestrator.evaluation.published import WHOLE, PublishedFigure, training_split
from vitaclip.checkpoint_info import CheckpointInfo, read_info
from vitaclip.config import DataConfig, EvalConfig, describe
from vitaclip.config.methods import MethodName
from vitaclip.data.datasets import load_dataset
from vitaclip.errors import DataError, InputError

_PRECISIONS = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Circumstance:
    """One of the things that decide an accuracy."""

    what: str
    here: str
    published: str | None  # None: the source does not say


@dataclass(frozen=True)
class Measured:
    """An accuracy in percent, with its 95% interval over clips."""

    percent: float
    low: float
    high: float
    num_clips: int


@dataclass(frozen=True)
class Finding:
    """What became of one published figure."""

    figure: PublishedFigure
    measured: Measured | None = None
    reason: str | None = None  # why it was not measured
    differences: tuple[Circumstance, ...] = ()  # and what may differ: the source does not say

    @property
    def verdict(self) -> str:
        """``inside`` if the published figure lies in the measured interval, else ``outside``; or
        ``not scored``.
        """
        if self.measured is None:
            return "not scored"
        inside = self.measured.low <= self.figure.percent <= self.measured.high
        return "inside" if inside else "outside"


def certify(folder: Path, figures: Sequence[PublishedFigure]) -> Iterator[Finding]:
    """Scores a checkpoint folder as each of a method's figures was published.

    Of several figures of one benchmark, only those are scored that fit the checkpoint's training
    and number of frames, if any does.

    Raises:
        CheckpointError: the checkpoint is incomplete, or its backbone is another one.
        InputError: its backbone cannot be loaded.
    """
    info, loaded = read_info(folder), load_checkpoint(folder)
    metrics: dict[BenchmarkConfig, dict[str, float]] = {}  # what was scored already
    fitting = fitting_figures(figures, info.config.data)
    for figure in figures:
        try:
            if figure not in fitting:
                raise InputError(
                    f"another figure of {figure.benchmark} fits this checkpoint of "
                    f"{info.config.data.num_frames} frames better"
                )
            benchmark = _benchmark(figure)
            if benchmark not in metrics:
                splits = score_models({0: loaded}, benchmark)[0]
                metrics[benchmark] = benchmark.summarize(splits)
        except (InputError, DataError) as error:
            yield Finding(figure, reason=str(error))
        else:
            yield _finding(figure, benchmark, metrics[benchmark], info, loaded)


def fitting_figures(
    figures: Sequence[PublishedFigure], data: DataConfig
) -> tuple[PublishedFigure, ...]:
    """Those to set a checkpoint against: for each benchmark the figures of its training and number
    of frames, or all where none is.
    """
    by_benchmark: dict[str, list[PublishedFigure]] = {}
    for figure in figures:
        by_benchmark.setdefault(figure.benchmark, []).append(figure)
    fitting: list[PublishedFigure] = []
    for group in by_benchmark.values():
        trained = [f for f in group if f.trained_on == training_split(data)] or group
        fitting += [f for f in trained if f.frames == str(data.num_frames)] or trained
    return tuple(fitting)


def _benchmark(figure: PublishedFigure) -> BenchmarkConfig:
    """How a figure is scored here: as published where that can be, on the splits that are there."""
    mode, _, dataset = figure.benchmark.partition("/")
    values = {
        "dataset": dataset,
        "split": _splits_there(dataset, figure.splits),
        "mode": mode,
        "views": EvalConfig.parse(figure.views or "1x1"),
        "templates": _templates(figure.texts),
    }
    try:
        return TypeAdapter(Benchmark).validate_python(values)
    except ValidationError as error:
        raise InputError(f"cannot be scored here: {describe(error)}") from error


def _splits_there(dataset: str, published: tuple[str, ...]) -> tuple[str, ...]:
    """The published splits, or those that a study would score if the lists are not there."""
    if published == (WHOLE,):
        raise InputError("no split holds all videos")
    usual = PUBLISHED_BENCHMARKS[dataset].splits if dataset in PUBLISHED_BENCHMARKS else ()
    reasons = []
    for splits in filter(None, (published, usual)):
        try:
            for split in splits:
                load_dataset(dataset, split)
        except InputError as error:
            reasons.append(str(error))
        else:
            return splits
    raise InputError(reasons[0] if reasons else "the source names no splits")


def _templates(texts: str | None) -> str | Sequence[str]:
    """What to read for new classes: published texts that are no sentences become plain names."""
    if texts is None:
        return ()
    if texts in get_args(ClipTemplates):
        return texts
    return (texts,) if "{}" in texts else ()


def _finding(
    figure: PublishedFigure,
    benchmark: BenchmarkConfig,
    metrics: Mapping[str, float],
    info: CheckpointInfo,
    loaded: LoadedModel,
) -> Finding:
    """A figure beside what was measured.

    Args:
        figure: as published.
        benchmark: how it was scored here.
        metrics: of that.
        info: what the checkpoint says of itself.
        loaded: its model.
    """
    found = {key.removeprefix(f"{benchmark.name}/"): value for key, value in metrics.items()}
    keys = (figure.metric, f"{figure.metric}_ci95_low", f"{figure.metric}_ci95_high")
    percent, low, high = (100 * found[key] for key in keys)
    circumstances = [
        *_of_model(figure, info, loaded),
        *_of_scoring(figure, benchmark),
        *_of_clips(found),
    ]
    return Finding(
        figure,
        measured=Measured(percent, low, high, int(found["num_clips"])),
        differences=tuple(c for c in circumstances if c.published != c.here),
    )


def _of_model(
    figure: PublishedFigure, info: CheckpointInfo, loaded: LoadedModel
) -> Iterator[Circumstance]:
    config, data = info.config, info.config.data
    if figure.key in get_args(MethodName):
        yield Circumstance("method", config.method.name, figure.key)
    trained_on = "nothing"
    if loaded.model.trainable():
        # what was imported says nothing of its training
        trained_on = training_split(data) if info.progress.epoch else "not recorded"
    yield Circumstance("trained on", trained_on, figure.trained_on or "nothing")
    backbone = f"{config.backbone.name.removesuffix('-quickgelu')}/{config.backbone.pretrained}"
    yield Circumstance("backbone", backbone, figure.backbone)
    yield Circumstance("frames", str(data.num_frames), figure.frames)
    sampling = data.sampling + (f" {data.stride}" if data.sampling == "dense" else "")
    yield Circumstance("sampling", sampling, figure.sampling)
    size = None if figure.image_size is None else str(figure.image_size)
    yield Circumstance("image size", str(loaded.model.image_size), size)
    yield Circumstance("precision", _PRECISIONS[loaded.model.autocast_dtype], figure.precision)


def _of_scoring(figure: PublishedFigure, benchmark: BenchmarkConfig) -> Iterator[Circumstance]:
    views = benchmark.views
    shown = f"{views.num_temporal_views}x{views.num_spatial_views}"
    yield Circumstance("views", shown, figure.views)
    yield Circumstance("splits", " ".join(benchmark.splits), " ".join(figure.splits) or None)
    # Trained classes are read as the method learned to read them.
    if benchmark.has_new_classes:
        templates = benchmark.templates
        texts = templates if isinstance(templates, str) else "".join(templates) or "names"
        yield Circumstance("texts", texts, figure.texts)


def _of_clips(found: Mapping[str, float]) -> Iterator[Circumstance]:
    num_broken, num_missing = int(found["num_broken"]), int(found["num_missing"])
    if num_broken or num_missing:
        total = int(found["num_clips"]) + num_broken + num_missing
        here = f"{num_missing} missing and {num_broken} broken of {total}"
        yield Circumstance("clips", here, "all of them")
