"""Points that were trained with several seeds: mean and standard deviation of what they reached."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, stdev

import plotly.graph_objects as go
from matplotlib.figure import Figure

from orchestrator.display.tables import format_params
from orchestrator.reporting.study_data import StudyData
from orchestrator.storage.records.trial import TrialResult

_ROW_INCHES = 0.3
_MOST_POINTS = 40


@dataclass(frozen=True)
class Spread:
    """Of one measure over the seeds of a point."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Point:
    """A point of the search space, and for each measure what its seeds reached."""

    name: str
    spreads: dict[str, Spread]


def repeated_points(data: StudyData) -> list[Point]:
    """The points with several seeds, best first; none where every trial is a point of its own."""
    config = data.info.config
    trials: dict[int, list[TrialResult]] = defaultdict(list)
    for result in data.results:
        if result.state == "complete":
            trials[result.number // config.search.num_repeats].append(result)
    points = [_point(data, group) for group in trials.values() if len(group) > 1]
    gain = config.search.objectives[0].gain
    return sorted(points, key=lambda point: -gain(point.spreads[data.metric].mean))


def _point(data: StudyData, trials: list[TrialResult]) -> Point:
    measured: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        measured[data.metric] += trial.values[:1] if trial.values else []
        for benchmark in data.info.config.benchmarks:
            measured[benchmark.name] += [
                value
                for value in [trial.benchmarks.get(f"{benchmark.name}/top1")]
                if value is not None
            ]
    spreads = {
        name: Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)
        for name, values in measured.items()
        if values
    }
    return Point(format_params(trials[0].params), spreads)


def points_figure(data: StudyData) -> go.Figure:
    """A row for each point, best on top; a mark for each measure, with its deviation over seeds."""
    points = repeated_points(data)[:_MOST_POINTS]
    figure = go.Figure()
    for name in _measures(points):
        having = [point for point in points if name in point.spreads]
        figure.add_scatter(
            x=[point.spreads[name].mean for point in having],
            y=[point.name for point in having],
            error_x={"array": [point.spreads[name].deviation for point in having]},
            mode="markers",
            name=name,
        )
    return figure.update_yaxes(autorange="reversed", automargin=True)


def points_picture(data: StudyData) -> Figure | None:
    """The same for a paper; None: no point has several seeds."""
    points = repeated_points(data)[:_MOST_POINTS]
    if not points:
        return None
    figure = Figure(figsize=(9, 1.2 + _ROW_INCHES * len(points)), layout="constrained")
    axes = figure.subplots()
    for name in _measures(points):
        having = [point for point in points if name in point.spreads]
        axes.errorbar(
            [point.spreads[name].mean for point in having],
            [point.name for point in having],
            xerr=[point.spreads[name].deviation for point in having],
            fmt="o",
            capsize=3,
            label=name,
        )
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", labelsize=7)
    axes.set(title=f"{data.name}: mean and standard deviation over seeds")
    axes.legend(fontsize=7)
    return figure


def _measures(points: list[Point]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.spreads))
