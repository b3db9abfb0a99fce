"""The tables of a study's pages: its trials, whether the best one is better, published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from orchestrator.display.tables import accuracy
from orchestrator.evaluation.pairing import Choice, paired_scores
from orchestrator.evaluation.published import PublishedFigure, figures_beside
from orchestrator.reporting.blends import chosen_blends
from orchestrator.reporting.html import header_row, note, row, table
from orchestrator.reporting.study_data import StudyData
from orchestrator.search.search_space import apply
from orchestrator.storage.records.score import BenchmarkScore
from orchestrator.storage.records.trial import TrialResult


def tables(data: StudyData) -> Iterator[tuple[str, str]]:
    """Title and HTML of each."""
    yield "Trials, best first", trials_html(data)
    yield "Is the best trial better?", _comparisons(data)
    if published := _published(data):
        yield "Beside published figures", published
    if blends := list(chosen_blends(data)):
        yield "Blends with the frozen CLIP, chosen by development classes", _blends(blends)


def trials_html(data: StudyData) -> str:
    """Trials with what varied, objectives and benchmarks; and the frozen CLIP."""
    if not data.results:
        return note("No trial has its result.")
    config = data.info.config
    objectives = [objective.metric for objective in config.search.objectives]
    benchmarks = [benchmark.name for benchmark in config.benchmarks]
    ends = ["state", "minutes", "GPU-hours"]
    rows = [header_row(["trial", *config.search_space, *objectives, *benchmarks, *ends])]
    for result in data.results:
        metrics = data.metrics(result.number)
        cells = [
            str(result.number),
            *(_short(result.params.get(key, "-")) for key in config.search_space),
            *([f"{value:.3f}" for value in result.values or ()] or ["-"] * len(objectives)),
            *(accuracy(metrics, name) for name in benchmarks),
            result.state,
            f"{sum(result.durations.values()) / 60:.1f}",
            f"{data.gpu_hours(result):.2f}",
        ]
        rows.append(row(cells, result.number))
    num_blank = len(config.search_space) + len(objectives)
    for baseline in data.baselines:
        clip = [accuracy(data.metrics(baseline), name) for name in benchmarks]
        rows.append(_model_row(baseline.name, num_blank, clip, kind="clip"))
    remark = (
        "Accuracies are fractions; in brackets the 95% interval (Clopper-Pearson, on the effective "
        "number of clips)."
    )
    return table(rows, "trials, best first", "trials") + note(remark)


def _model_row(name: str, num_blank: int, scores: Sequence[str], kind: str) -> str:
    """A model that is no trial: its name has the room of parameters and objectives."""
    cells = "".join(f"<td>{escape(score)}</td>" for score in (*scores, "", "", ""))
    return f'<tr class="{kind}"><td colspan={1 + num_blank}>{escape(name)}</td>{cells}</tr>'


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _comparisons(data: StudyData) -> str:
    """The best trial against the frozen CLIP and against the next trials, on the same clips."""
    if data.best is None:
        return note("No trial has finished an epoch.")
    counted = ["only best right", "only other right", "p", ""]
    rows = [header_row(["benchmark", "against", "best trial", "other", *counted])]
    names, scores = zip(*_others(data, data.best), strict=True)
    trained = apply(data.info.config.train, data.best.params)
    choice = Choice.of_best(trained.data, len(data.results))
    for name, pairs in zip(
        names, paired_scores(data.scores[data.best.number], scores, choice), strict=True
    ):
        for pair in pairs:
            words = {"first is better": "better", "second is better": "worse"}.get(
                pair.verdict, pair.verdict
            )
            counts = (str(pair.only_first), str(pair.only_second), f"{pair.p_value:.2g}")
            top1 = [f"{value:.3f}" for value in pair.top1]
            rows.append(row([pair.benchmark, name, *top1, *counts, words]))
    remark = (
        "Exact test on the same clips (McNemar's; where clips weigh differently, by sign flips), "
        "5% level, corrected for all comparisons of this table (Holm). The best trial was chosen "
        "on the clips of the search and looks better there than it is: on them, p is multiplied "
        f"by the number of trials, {choice.num_trials}."
    )
    return table(rows, "comparisons of the best trial", "pairs") + note(remark)


def _others(data: StudyData, best: TrialResult) -> Iterator[tuple[str, Sequence[BenchmarkScore]]]:
    baseline = data.baseline_of[best.number]
    yield baseline.name, data.scores[baseline]
    for result in [result for result in data.results if result != best][:3]:
        yield f"trial {result.number}", data.scores[result.number]


def _published(data: StudyData) -> str:
    """A row for each benchmark that has published figures, and a column for each method; empty:
    none has.
    """
    if data.best is None:
        return ""
    trained = apply(data.info.config.train, data.best.params).data
    names = [benchmark.name for benchmark in data.info.config.benchmarks]
    beside = {name: found for name in names if (found := figures_beside(name, trained))}
    if not beside:
        return ""
    methods = list(dict.fromkeys(method for found in beside.values() for method in found))
    rows = [header_row(["benchmark", "best trial", "frozen CLIP here", *methods])]
    for name, found in beside.items():
        models = (data.best.number, data.baseline_of[data.best.number])
        here = [name, *(accuracy(data.metrics(model), name) for model in models)]
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in here)
        cells += "".join(_published_cell(found.get(method, ())) for method in methods)
        rows.append(f"<tr>{cells}</tr>")
    remark = (
        "<p class=note>Under a method's name: as published, not measured here, with CLIP ViT-B/16. "
        "Frames, views, splits and texts differ; <code>vitaclip published</code> tells them, with "
        "the sources.</p>"
    )
    return table(rows, "published figures") + remark


def _published_cell(figures: Sequence[PublishedFigure]) -> str:
    lines = [
        f'<span title="{escape(figure.source)}">{figure.as_fraction}</span>'
        f"<br><small>{escape(figure.circumstances)}</small>"
        for figure in figures
    ]
    return f"<td class=published>{'<br>'.join(lines) or '-'}</td>"


def _blends(lines: Sequence[Sequence[str]]) -> str:
    rows = [header_row(lines[0]), *map(row, lines[1:])]
    remark = "The share is 0 for the frozen CLIP and 1 for the trial; in brackets the 95% interval."
    return table(rows, "chosen blends") + note(remark)
