"""The figures of a study's report: Optuna's own plots where they exist, plotly for the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import optuna
import plotly.graph_objects as go

from orchestrator.display.tables import format_params
from orchestrator.evaluation.ranking import pareto_front
from orchestrator.reporting.blends import MOST_NAMES, blend_curves, front_pairs
from orchestrator.reporting.optuna_view import first_objective, optuna_study
from orchestrator.reporting.points import points_figure
from orchestrator.reporting.study_data import StudyData, UnfinishedTrial
from orchestrator.storage.records.score import BenchmarkScore
from orchestrator.storage.records.trial import TrialResult

_BEST, _OTHER = "#c44e52", "#4c72b0"


def figures(data: StudyData) -> dict[str, go.Figure | str]:
    """Title -> figure, or the reason why there is none."""
    study = optuna_study(data)
    plots: Any = optuna.visualization
    target = first_objective(data, study)
    makers: dict[str, Callable[[], go.Figure]] = {
        "Learning curves": lambda: learning_curves(data),
        "Progress of the search": lambda: plots.plot_optimization_history(study, **target),
        "Parallel coordinates": lambda: plots.plot_parallel_coordinate(study, **target),
        "Importance of the parameters": lambda: plots.plot_param_importances(
            study, fanova(), **target
        ),
        "One parameter at a time": lambda: plots.plot_slice(study, **target),
        **(
            {"Points, over their seeds": lambda: points_figure(data)}
            if data.info.config.search.num_repeats > 1
            else {}
        ),
        **{f"{x} against {y}": partial(trade_off, data, x, y) for x, y in trade_offs(data)},
        **{
            f"Blends with the frozen CLIP: {x} against {y}": partial(blend_curves, data, x, y)
            for x, y in front_pairs(data)
        },
        **{title: partial(class_gains, *pair) for title, pair in _gain_pairs(data).items()},
        "Time by trial": lambda: durations(data),
    }
    return {title: _figure_or_reason(make) for title, make in makers.items()}


def fanova() -> optuna.importance.FanovaImportanceEvaluator:
    """The importance measure of Hutter et al. (2014): the share of the objective's variance."""
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def _figure_or_reason(make: Callable[[], go.Figure]) -> go.Figure | str:
    """Optuna refuses studies with too few or too equal trials; the page then says so."""
    try:
        figure = make()
    except (ValueError, RuntimeError) as error:
        return str(error)
    points = [getattr(trace, "x", None) for trace in figure.data]  # parallel axes have none
    if not any(x is None or len(x) for x in points):
        return "no trial has got so far"
    is_parallel = bool(_parallel_axes(figure))
    num_named = sum(trace.showlegend is not False for trace in figure.data)
    return figure.update_layout(
        template="plotly_white",
        title=None,
        width=None,  # the page's, whatever Optuna thinks of it
        # labels of parallel axes stand beside them, and make no room for themselves
        margin={"t": 50, "l": 90, "r": 60, "b": 80} if is_parallel else {"t": 30, "l": 60, "r": 20},
        font_size=13,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        # With more, a legend takes the figure's room, and the pointer names what it stands on.
        showlegend=len(figure.data) > 1 and num_named <= MOST_NAMES,
    )


def min_width(figure: go.Figure) -> int:
    """How many pixels a figure needs to be read; where there are fewer, it scrolls."""
    if num_axes := _parallel_axes(figure):
        return 150 + 140 * num_axes
    num_plots = sum(1 for _ in figure.select_xaxes())
    return 330 if num_plots == 1 else 120 + 200 * num_plots


def _parallel_axes(figure: go.Figure) -> int:
    """How many parallel axes Optuna has drawn: as one trace, or since 5.0 as lines over ticks."""
    if isinstance(figure.data[0], go.Parcoords):
        return len(figure.data[0].dimensions)
    return len(figure.layout.xaxis.tickvals or ())


def learning_curves(data: StudyData) -> go.Figure:
    """The first objective after each epoch; the best trial stands out, and those that have not
    finished are dotted.
    """
    figure = go.Figure()
    trials: list[TrialResult | UnfinishedTrial] = [*data.unfinished, *reversed(data.results)]
    for trial in trials:
        points = [(m["epoch"], m[data.metric]) for m in trial.history if data.metric in m]
        if points:
            best = trial == data.best
            figure.add_scatter(
                x=[epoch for epoch, _ in points],
                y=[value for _, value in points],
                name=f"{trial.number} {'' if trial.state == 'complete' else trial.state}",
                hovertext=format_params(trial.params),
                mode="lines+markers",
                line={
                    "color": _BEST if best else _OTHER,
                    "width": 3 if best else 1,
                    "dash": "dot" if trial in data.unfinished else "solid",
                },
                opacity=1.0 if best else 0.6,
            )
    num_epochs = data.info.config.train.epochs
    figure.update_xaxes(title="epoch", tick0=0, dtick=max(1, num_epochs // 10))
    return figure.update_yaxes(title=data.metric)


def accuracies(data: StudyData, x: str, y: str) -> dict[int, tuple[float, float]]:
    """Two accuracies of every trial that has both."""
    return {
        result.number: (metrics[x], metrics[y])
        for result in data.results
        if {x, y} <= (metrics := result.metrics | data.metrics(result.number)).keys()
    }


def trade_off(data: StudyData, x: str, y: str) -> go.Figure:
    """Two accuracies of every trial, with the Pareto front and the frozen CLIP."""
    points = accuracies(data, x, y)
    front = pareto_front(points)
    figure = go.Figure()
    for name, numbers, color, mode in (
        ("trials", list(points), _OTHER, "markers"),
        ("Pareto front", front, _BEST, "lines+markers"),
    ):
        figure.add_scatter(
            x=[points[n][0] for n in numbers],
            y=[points[n][1] for n in numbers],
            text=[f"trial {n}" for n in numbers],
            name=name,
            mode=mode,
            marker={"color": color, "size": 9},
        )
    for clip in data.baselines:
        name = "frozen CLIP" + (f", {clip.num_frames} frames" if len(data.baselines) > 1 else "")
        if y in (metrics := data.metrics(clip)):
            figure.add_hline(y=metrics[y], line_dash="dot", annotation_text=name)
    return figure.update_xaxes(title=x).update_yaxes(title=y)


def trade_offs(data: StudyData) -> list[tuple[str, str]]:
    """Objectives against each other, and the first one against each benchmark of new classes."""
    objectives = [
        objective.metric
        for objective in data.info.config.search.objectives
        if objective.is_maximized
    ]
    benchmarks = data.info.config.benchmarks
    names = [f"{b.name}/top1" for b in benchmarks if b.has_new_classes]
    return [*combinations(objectives, 2), *((data.metric, name) for name in names)]


def _gain_pairs(data: StudyData) -> dict[str, tuple[BenchmarkScore, BenchmarkScore]]:
    """Best trial and frozen CLIP on each benchmark that both were scored on."""
    if data.best is None:
        return {}
    clip = {score.benchmark: score for score in data.scores[data.baseline_of[data.best.number]]}
    return {
        f"Gains and losses by class, {score.benchmark.name}": (score, clip[score.benchmark])
        for score in data.scores[data.best.number]
        if score.benchmark in clip
    }


def class_gains(score: BenchmarkScore, clip: BenchmarkScore) -> go.Figure:
    """Accuracy over the frozen CLIP's, by class, means over the splits that hold it."""
    ours, theirs = mean_per_class(score), mean_per_class(clip)
    gains = sorted((ours[name] - theirs[name], name) for name in ours.keys() & theirs.keys())
    values = [gain for gain, _ in gains]
    colors = [_BEST if value < 0 else "#55a868" for value in values]
    figure = go.Figure(
        go.Bar(x=values, y=[name for _, name in gains], orientation="h", marker_color=colors)
    )
    return figure.update_layout(height=max(300, 18 * len(gains) + 80)).update_xaxes(
        title="top-1 over frozen CLIP"
    )


def mean_per_class(score: BenchmarkScore) -> dict[str, float]:
    """Accuracy by class, the mean over the splits that hold the class."""
    values: dict[str, list[float]] = {}
    for split in score.splits:
        for name, top1 in split.per_class_top1.items():
            values.setdefault(name, []).append(top1)
    return {name: sum(found) / len(found) for name, found in values.items()}


def durations(data: StudyData) -> go.Figure:
    """Minutes by trial, training and benchmarks."""
    results = sorted(data.results, key=lambda result: result.number)
    figure = go.Figure()
    for key, name in (("train_s", "training"), ("benchmarks_s", "benchmarks")):
        minutes: list[Any] = [result.durations.get(key, 0.0) / 60 for result in results]
        figure.add_bar(x=[str(result.number) for result in results], y=minutes, name=name)
    return (
        figure.update_layout(barmode="stack")
        .update_xaxes(title="trial")
        .update_yaxes(title="minutes")
    )
