"""PNG files of a report's main figures, for papers and chats."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from orchestrator.evaluation.ranking import pareto_front
from orchestrator.reporting.blends import (
    MOST_NAMES,
    OTHER_TRIALS,
    front_pairs,
    fronts,
    named_trials,
)
from orchestrator.reporting.figures import accuracies, fanova, trade_offs
from orchestrator.reporting.optuna_view import first_objective
from orchestrator.reporting.points import points_picture
from orchestrator.reporting.study_data import StudyData


def write_pictures(data: StudyData, study: optuna.Study, folder: Path) -> None:
    """Writes ``learning_curves.png`` and Optuna's plots; those that it refuses to draw are left
    out.
    """
    _learning_curves(data).savefig(folder / "learning_curves.png", dpi=150)
    if pairs := trade_offs(data):
        _pareto(data, pairs).savefig(folder / "pareto.png", dpi=150)
    if curves := front_pairs(data):
        _fronts(data, curves).savefig(folder / "blends.png", dpi=150)
    if (points := points_picture(data)) is not None:
        points.savefig(folder / "points.png", dpi=150)
    plots: Any = optuna.visualization.matplotlib
    target = first_objective(data, study)
    makers = {
        "progress": plots.plot_optimization_history,
        "parallel_coordinates": plots.plot_parallel_coordinate,
        "importances": partial(plots.plot_param_importances, evaluator=fanova()),
        "slices": plots.plot_slice,
    }
    for name, make in makers.items():
        (folder / f"{name}.png").unlink(missing_ok=True)
        try:
            # Optuna calls its matplotlib plots experimental
            with warnings.catch_warnings(action="ignore"):
                axes: Any = make(study, **target)
        except (ValueError, RuntimeError):
            continue  # the page says why
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
        plt.close(figure)


def _pareto(data: StudyData, pairs: Sequence[tuple[str, str]]) -> Figure:
    """Each pair of accuracies: all trials, and the front of those that none beats in both."""
    figure = Figure(figsize=(5.5 * len(pairs), 4.5), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        points = accuracies(data, x, y)
        front = pareto_front(points)
        if points:
            axes.scatter(*zip(*points.values(), strict=True), color="lightgrey", label="trials")
            axes.plot(
                *zip(*(points[n] for n in front), strict=True), marker="o", label="Pareto front"
            )
        for number in front:
            axes.annotate(f" {number}", points[number])
        axes.set(xlabel=x, ylabel=y, title=data.name)
        axes.legend(fontsize=7)
    return figure


def _fronts(data: StudyData, pairs: Sequence[tuple[str, str]]) -> Figure:
    """One line for each trial's blends; a star where the development classes choose. Of many trials
    only some have a color and a name.
    """
    names = named_trials(data)
    figure = Figure(figsize=(5.5 * len(pairs), 4.5), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for number, front in sorted(fronts(data).items(), key=lambda item: item[0] in names):
            points = {a: p for a, p in front.points.items() if {x, y} <= p.keys()}
            curve = [(point[x].top1, point[y].top1) for point in points.values()]
            style = {"label": names[number]} if number in names else {"color": OTHER_TRIALS}
            [line] = axes.plot(*zip(*curve, strict=True), marker=".", **style)
            if front.chosen in points:
                chosen = points[front.chosen]
                axes.plot(chosen[x].top1, chosen[y].top1, marker="*", ms=12, color=line.get_color())
        axes.set(xlabel=f"{x}/top1", ylabel=f"{y}/top1", title=f"{data.name}: blends")
        axes.legend(fontsize=7, ncols=2)
    return figure


def _learning_curves(data: StudyData) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    named = {result.number for result in data.results[:MOST_NAMES]}
    for result in data.results:
        points = [(m["epoch"], m[data.metric]) for m in result.history if data.metric in m]
        is_named = result.number in named
        style: dict[str, Any] = {"label": f"trial {result.number}", "zorder": 3}
        style = style if is_named else {"color": OTHER_TRIALS}
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", **style)
    axes.set(xlabel="epoch", ylabel=data.metric, title=data.name)
    axes.legend(fontsize=7, ncols=2)
    return figure
