"""A study's trials as a table for a paper (LaTeX), or for a spreadsheet (CSV)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from orchestrator.config import Objective, Scalar
from orchestrator.reporting.study_data import StudyData
from orchestrator.storage.records.trial import TrialResult

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
}


def csv_table(data: StudyData) -> str:
    """A line for each trial, best first, and for each frozen CLIP. Numbers are whole, accuracies
    are fractions; what a model does not have is empty.
    """
    config = data.info.config
    objectives = [objective.metric for objective in config.search.objectives]
    parts = ("top1", "top1_std", "top1_ci95_low", "top1_ci95_high")
    scores = [f"{benchmark.name}/{part}" for benchmark in config.benchmarks for part in parts]
    ends = ["train_minutes", "gpu_hours"]
    names = ["model", "trial", *config.search_space, "state", "epoch", *objectives, *scores, *ends]
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(names), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for result in data.results:
        writer.writerow(
            {
                **data.metrics(result.number),
                **dict(zip(objectives, result.values or (), strict=False)),
                **result.params,
                "model": f"trial {result.number}",
                "trial": result.number,
                "state": result.state,
                "epoch": result.best_epoch,
                "train_minutes": result.durations.get("train_s", 0.0) / 60,
                "gpu_hours": data.gpu_hours(result),
            }
        )
    for baseline in data.baselines:
        writer.writerow({**data.metrics(baseline), "model": baseline.name})
    return text.getvalue()


@dataclass(frozen=True)
class _Cell:
    """Mean and spread of one metric."""

    mean: float
    spread: float | None = None

    def text(self, metric: str) -> str:
        """Accuracies in percent, anything else in three digits."""
        if not metric.endswith(("top1", "top5")):
            return f"{self.mean:.3g}" + ("" if self.spread is None else f" ± {self.spread:.2g}")
        spread = "" if self.spread is None else f" ± {100 * self.spread:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


class _Point(NamedTuple):
    """Its parameters, and what its complete trials have reached, by metric."""

    params: Mapping[str, Scalar]
    cells: Mapping[str, _Cell]


def latex_table(data: StudyData) -> str:
    """A line for each point whose trials are complete, best first, below the frozen CLIP; for the
    package booktabs. Accuracies are in percent; the best of each column is bold.

    "±" is the spread over seeds where a point has several, else over a benchmark's splits.
    """
    config = data.info.config
    objectives = [objective.metric for objective in config.search.objectives]
    scores = [f"{benchmark.name}/top1" for benchmark in config.benchmarks]
    metrics = list(dict.fromkeys(objectives + scores))
    points = _points(data, metrics)
    best = _bests(data, metrics, points)
    keys, titles = list(config.search_space), [metric.removesuffix("/top1") for metric in metrics]
    lines = [
        f"% {len(points)} points of study {data.name}, config {data.info.config_hash}",
        rf"\begin{{tabular}}{{{'l' * len(keys)}{'r' * len(metrics)}}}",
        r"\toprule",
        _line(_escaped(name) for name in (*(k.rpartition(".")[2] for k in keys), *titles)),
        r"\midrule",
    ]
    for clip in data.baselines:
        found = data.metrics(clip)
        cells = {metric: _score(found, metric) for metric in metrics if metric in found}
        name = rf"\multicolumn{{{len(keys)}}}{{l}}{{{_escaped(clip.name)}}}"
        lines.append(_line([name, *(_show(cells, metric, {}) for metric in metrics)]))
    lines += [r"\midrule"] if data.baselines else []
    for point in points:
        values = [_escaped(_short(point.params.get(key, "-"))) for key in keys]
        shown = [_show(point.cells, metric, best) for metric in metrics]
        lines.append(_line([*values, *shown]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _points(data: StudyData, metrics: Sequence[str]) -> list[_Point]:
    """Of each point with complete trials, best mean of the first objective first."""
    search = data.info.config.search
    groups: dict[int, list[TrialResult]] = {}
    for result in data.results:
        if result.state == "complete":
            groups.setdefault(result.number // search.num_repeats, []).append(result)
    points = [_Point(trials[0].params, _cells(data, trials, metrics)) for trials in groups.values()]
    first = search.objectives[0]
    return sorted(points, key=lambda point: -first.gain(point.cells[first.metric].mean))


def _bests(
    data: StudyData, metrics: Sequence[str], points: Sequence[_Point]
) -> dict[str, float | None]:
    """The best mean of each metric. More is better in all that are no objective."""
    objectives = {objective.metric: objective for objective in data.info.config.search.objectives}
    return {
        metric: objectives.get(metric, Objective()).best(
            point.cells[metric].mean for point in points if metric in point.cells
        )
        for metric in metrics
    }


def _cells(
    data: StudyData, trials: Sequence[TrialResult], metrics: Sequence[str]
) -> dict[str, _Cell]:
    found = [trial.metrics | data.metrics(trial.number) for trial in trials]
    cells = {}
    for metric in metrics:
        values = [values[metric] for values in found if metric in values]
        if len(values) > 1:
            cells[metric] = _Cell(fmean(values), stdev(values))
        elif values:
            cells[metric] = _score(next(f for f in found if metric in f), metric)
    return cells


def _score(found: Mapping[str, float], metric: str) -> _Cell:
    return _Cell(found[metric], found.get(f"{metric}_std"))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show(cells: Mapping[str, _Cell], metric: str, best: Mapping[str, float | None]) -> str:
    if metric not in cells:
        return "--"
    text = cells[metric].text(metric).replace("±", r"$\pm$")
    return rf"\textbf{{{text}}}" if cells[metric].mean == best.get(metric) else text


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return re.sub(r"[&%$#_{}~^\\<>|]", lambda found: _LATEX[found[0]], " ".join(text.split()))
