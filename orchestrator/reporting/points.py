"""Points that were trained with several seeds: mean and standard deviation of what they reached."""

from __future__ import annotations

import plotly.graph_objects as go
from matplotlib.figure import Figure

from orchestrator.display.tables import format_params
from orchestrator.evaluation.points import Point, points_over_seeds
from orchestrator.reporting.study_data import StudyData

_ROW_INCHES = 0.3
_MOST_POINTS = 40


def points_figure(data: StudyData) -> go.Figure:
    """A row for each point, best on top; a mark for each measure, with its deviation over seeds."""
    points = _repeated_points(data)
    figure = go.Figure()
    for name in _drawn(data):
        having = [point for point in points if name in point.spreads]
        figure.add_scatter(
            x=[point.spreads[name].mean for point in having],
            y=[format_params(point.params) for point in having],
            error_x={"array": [point.spreads[name].deviation for point in having]},
            mode="markers",
            name=name,
        )
    return figure.update_yaxes(autorange="reversed", automargin=True)


def points_picture(data: StudyData) -> Figure | None:
    """The same for a paper; None: no point has several seeds."""
    points = _repeated_points(data)
    if not points:
        return None
    figure = Figure(figsize=(9, 1.2 + _ROW_INCHES * len(points)), layout="constrained")
    axes = figure.subplots()
    for name in _drawn(data):
        having = [point for point in points if name in point.spreads]
        axes.errorbar(
            [point.spreads[name].mean for point in having],
            [format_params(point.params) for point in having],
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


def _repeated_points(data: StudyData) -> list[Point]:
    """The best points with several seeds; none where every trial is a point of its own."""
    points = points_over_seeds(data.info.config, data.results)
    return [point for point in points if point.num_seeds > 1][:_MOST_POINTS]


def _drawn(data: StudyData) -> list[str]:
    """The measures that share an axis; other objectives may be no accuracy."""
    return [data.metric, *(benchmark.name for benchmark in data.info.config.benchmarks)]
