"""Blends with the frozen CLIP in a report: a curve for each trial, and the chosen points."""

from __future__ import annotations

from collections.abc import Iterator

import plotly.graph_objects as go

from orchestrator.evaluation.fronts import BlendPoint, Front, front_of
from orchestrator.reporting.study_data import StudyData

MOST_NAMES = 12
OTHER_TRIALS = "lightgrey"


def fronts(data: StudyData) -> dict[int, Front]:
    """The blends of each trial that has any, best trial first."""
    found = {result.number: front_of(data.scores[result.number]) for result in data.results}
    return {number: front for number, front in found.items() if front is not None}


def named_trials(data: StudyData) -> dict[int, str]:
    """The trials that a figure of blends tells apart, and their names in it: the best one of each
    choice of the first categorical parameter, or the best few.
    """
    found = fronts(data)
    results = [result for result in data.results if result.number in found]
    space = data.info.config.search_space
    key = next((key for key, values in space.items() if values.type == "categorical"), None)
    if key is not None and len(results) > MOST_NAMES:
        best_of: dict[str, int] = {}
        for result in results:
            best_of.setdefault(str(result.params.get(key, "-")), result.number)
        if len(best_of) <= MOST_NAMES:
            return {number: f"{choice}, trial {number}" for choice, number in best_of.items()}
    return {result.number: f"trial {result.number}" for result in results[:MOST_NAMES]}


def front_pairs(data: StudyData) -> list[tuple[str, str]]:
    """Each benchmark of trained classes against each of new ones, where blends were scored on
    both.
    """
    scored = [b for b in data.info.config.benchmarks if b.alphas and b.mode != "development"]
    trained = [benchmark.name for benchmark in scored if not benchmark.has_new_classes]
    new = [benchmark.name for benchmark in scored if benchmark.has_new_classes]
    return [(x, y) for x in trained for y in new]


def blend_curves(data: StudyData, x: str, y: str) -> go.Figure:
    """One line for each trial, from the frozen CLIP to the trained model; a star where the
    development classes choose. Of many trials only some have a color and a name.
    """
    figure = go.Figure()
    names = named_trials(data)
    for number, front in sorted(fronts(data).items(), key=lambda item: item[0] in names):
        alphas = [alpha for alpha, points in front.points.items() if {x, y} <= points.keys()]
        figure.add_scatter(
            x=[front.points[alpha][x].top1 for alpha in alphas],
            y=[front.points[alpha][y].top1 for alpha in alphas],
            text=[f"trial {number}, training's share {alpha:g}" for alpha in alphas],
            name=names.get(number, f"trial {number}"),
            showlegend=number in names,
            mode="lines+markers",
            line=None if number in names else {"color": OTHER_TRIALS},
            marker={
                "symbol": ["star" if alpha == front.chosen else "circle" for alpha in alphas],
                "size": [14 if alpha == front.chosen else 6 for alpha in alphas],
            },
        )
    return figure.update_xaxes(title=f"{x}/top1").update_yaxes(title=f"{y}/top1")


def chosen_blends(data: StudyData) -> Iterator[list[str]]:
    """A header, and for each trial the share that the development classes chose, with top-1 and its
    interval on every benchmark; nothing if none was chosen.
    """
    found = {n: front for n, front in fronts(data).items() if front.chosen is not None}
    if not found:
        return
    names = sorted({name for front in found.values() for name in front.benchmarks})
    yield ["trial", "training's share", *names]
    for number, front in found.items():
        assert front.chosen is not None
        points = front.points[front.chosen]
        cells = [_text(points[name]) if name in points else "-" for name in names]
        yield [str(number), f"{front.chosen:g}", *cells]


def _text(point: BlendPoint) -> str:
    return f"{point.top1:.3f} [{point.low:.3f}, {point.high:.3f}]"
