"""Files that MLflow's runs carry beside parameters and metrics."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions

from matplotlib.figure import Figure

from orchestrator.storage.records.split_score import SplitScore


def per_class_csv(split: SplitScore) -> str:
    """``class,num_clips,top1`` rows."""
    totals = split.confusion.sum(axis=1)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["class", "num_clips", "top1"])
    accuracy = split.per_class_top1
    rows.writerows(
        [name, int(total), accuracy.get(name, "")]
        for name, total in zip(split.classes, totals, strict=True)
    )
    return text.getvalue()


def curves_csv(history: Sequence[Mapping[str, float]]) -> str:
    """A row of metrics per epoch."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for metrics in history for name in metrics))
    rows = csv.DictWriter(text, names)
    rows.writeheader()
    rows.writerows(history)
    return text.getvalue()


def confusion_figure(split: SplitScore) -> Figure:
    """The confusion matrix, each row as shares of its true class."""
    counts = split.confusion
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = max(4.0, min(20.0, 0.3 * len(split.classes) + 2))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    ticks = range(len(split.classes))
    if len(split.classes) <= 60:
        axes.set_xticks(ticks, split.classes, rotation=90, fontsize=7)
        axes.set_yticks(ticks, split.classes, fontsize=7)
    axes.set(xlabel="predicted", ylabel="true", title=f"{split.split}: top-1 {split.top1:.3f}")
    return figure


def installed_packages() -> dict[str, str]:
    """Name and version of every installed distribution."""
    return dict(sorted((package.metadata["Name"], package.version) for package in distributions()))
