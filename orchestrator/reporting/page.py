"""One HTML page that needs no network, and pictures of its figures.

The page, the terminal's table and MLflow read the same records.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from orchestrator.display.tables import accuracy, code_lines
from orchestrator.dotted import flatten
from orchestrator.evaluation.pairing import Choice, paired_scores
from orchestrator.evaluation.published import PublishedFigure, figures_beside
from orchestrator.reporting.blends import chosen_blends
from orchestrator.reporting.figures import figures
from orchestrator.reporting.optuna_view import optuna_study
from orchestrator.reporting.pictures import write_pictures
from orchestrator.reporting.study_data import StudyData
from orchestrator.search.search_space import apply
from orchestrator.storage.records.score import BenchmarkScore
from orchestrator.storage.records.split_score import SplitScore
from orchestrator.storage.records.trial import TrialResult
from vitaclip.data.datasets import load_dataset
from vitaclip.errors import VitaClipError

_NUM_CONFUSED_PAIRS = 3
_STRIP_FRAMES, _STRIP_HEIGHT = 6, 96
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 1140px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1em 0 }
th, td { border-bottom: 1px solid #ddd; padding: .3em .6em; text-align: right; vertical-align: top }
th:first-child, td:first-child, td.text { text-align: left } tr.clip td { background: #f3f6fa }
td.published { color: #777; font-style: italic } td.published small { white-space: normal }
.note { color: #777 } .scroll { overflow-x: auto } .scroll td + td { white-space: nowrap }
th { vertical-align: bottom } .pairs td:nth-last-child(-n+2) { white-space: nowrap }
"""
# Nothing may be loaded from anywhere; plotly's WebGL plots build functions at run time.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)


def write_report(data: StudyData, folder: Path) -> None:
    """Writes ``report.html``, ``*.png`` and ``optuna.db`` (for optuna-dashboard) into
    ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page(data), encoding="utf-8")
    write_pictures(data, optuna_study(data), folder)
    database = folder / "optuna.db"
    database.unlink(missing_ok=True)
    optuna_study(data, f"sqlite:///{database}")


def page(data: StudyData) -> str:
    """The whole page as text."""
    config = data.info.config
    parts = [
        f"<h1>{escape(data.name)}</h1>",
        f"<p><b>{escape(config.question)}</b></p><p>Hypothesis: {escape(config.hypothesis)}</p>",
        *(f"<p class=note>Left out: {escape(problem)}</p>" for problem in data.unreadable),
        "<h2>Trials, best first</h2>",
        trials_html(data),
        "<h2>Is the best trial better?</h2>",
        _comparisons(data),
        *_published(data),
    ]
    if blends := list(chosen_blends(data)):
        parts += ["<h2>Blends with the frozen CLIP, chosen by development classes</h2>"]
        parts += [_blends_html(blends)]
    for title, figure in figures(data).items():
        parts += [f"<h2>{escape(title)}</h2>", _figure_html(figure)]
    parts += ["<h2>Most confused pairs of the best trial</h2>", *_confused_pairs(data)]
    parts += ["<h2>What it ran on</h2>", _facts(data)]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(data.name)}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def trials_html(data: StudyData) -> str:
    """Trials with what varied, objectives and benchmarks; and the frozen CLIP."""
    config = data.info.config
    objectives = [objective.metric for objective in config.search.objectives]
    benchmarks = [benchmark.name for benchmark in config.benchmarks]
    header = [
        "trial",
        *config.search_space,
        *objectives,
        *benchmarks,
        "state",
        "minutes",
        "GPU-hours",
    ]
    rows = [_header_row(header)]
    for result in data.results:
        values = [f"{value:.3f}" for value in result.values or ()] or ["-"] * len(objectives)
        params = [_short(result.params.get(key, "-")) for key in config.search_space]
        metrics = data.metrics(result.number)
        times = [f"{sum(result.durations.values()) / 60:.1f}", f"{data.gpu_hours(result):.2f}"]
        cells = [
            str(result.number),
            *params,
            *values,
            *(accuracy(metrics, name) for name in benchmarks),
        ]
        rows.append(_row([*cells, result.state, *times]))
    num_blank = len(config.search_space) + len(objectives)
    for baseline in data.baselines:
        clip = [accuracy(data.metrics(baseline), name) for name in benchmarks]
        rows.append(_model_row(baseline.name, num_blank, clip, kind="clip"))
    note = (
        "<p class=note>Accuracies are fractions; in brackets the 95% interval "
        "(Clopper-Pearson, on the effective number of clips).</p>"
    )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>{note}'


def _header_row(names: Sequence[str]) -> str:
    """Names may break at their dots, slashes and underscores, so that wide tables fit the page."""
    cells = (re.sub(r"([./_])", r"\1<wbr>", escape(name)) for name in names)
    return f"<tr>{''.join(f'<th>{cell}</th>' for cell in cells)}</tr>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _model_row(name: str, num_blank: int, scores: Sequence[str], kind: str) -> str:
    """A model that is no trial: its name has the room of parameters and objectives."""
    cells = "".join(f"<td>{escape(score)}</td>" for score in (*scores, "", "", ""))
    return f'<tr class="{kind}"><td colspan={1 + num_blank}>{escape(name)}</td>{cells}</tr>'


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _comparisons(data: StudyData) -> str:
    """The best trial against the frozen CLIP and against the next trials, on the same clips."""
    if data.best is None:
        return "<p class=note>No trial has finished an epoch.</p>"
    header = [
        "benchmark",
        "against",
        "best trial",
        "other",
        "only best right",
        "only other right",
        "p",
        "",
    ]
    rows = [_header_row(header)]
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
            rows.append(
                _row([pair.benchmark, name, *(f"{top1:.3f}" for top1 in pair.top1), *counts, words])
            )
    note = (
        "Exact test on the same clips (McNemar's; where clips weigh differently, by sign flips), "
        "5% level, corrected for all comparisons of this table (Holm). The best trial was chosen "
        "on the clips of the search and looks better there than it is: on them, p is multiplied "
        f"by the number of trials, {choice.num_trials}."
    )
    return f"<table class=pairs>{''.join(rows)}</table><p class=note>{note}</p>"


def _others(data: StudyData, best: TrialResult) -> Iterator[tuple[str, Sequence[BenchmarkScore]]]:
    baseline = data.baseline_of[best.number]
    yield baseline.name, data.scores[baseline]
    for result in [result for result in data.results if result != best][:3]:
        yield f"trial {result.number}", data.scores[result.number]


def _published(data: StudyData) -> Iterator[str]:
    """A row for each benchmark that has published figures, and a column for each method."""
    if data.best is None:
        return
    trained = apply(data.info.config.train, data.best.params).data
    names = [benchmark.name for benchmark in data.info.config.benchmarks]
    beside = {name: found for name in names if (found := figures_beside(name, trained))}
    if not beside:
        return
    methods = list(dict.fromkeys(method for found in beside.values() for method in found))
    rows = [_header_row(["benchmark", "best trial", "frozen CLIP here", *methods])]
    for name, found in beside.items():
        models = (data.best.number, data.baseline_of[data.best.number])
        here = [name, *(accuracy(data.metrics(model), name) for model in models)]
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in here)
        cells += "".join(_published_cell(found.get(method, ())) for method in methods)
        rows.append(f"<tr>{cells}</tr>")
    yield "<h2>Beside published figures</h2>"
    yield f'<div class="scroll"><table>{"".join(rows)}</table></div>'
    yield (
        "<p class=note>Under a method's name: as published, not measured here, with CLIP ViT-B/16. "
        "Frames, views, splits and texts differ; <code>vitaclip published</code> tells them, with "
        "the sources.</p>"
    )


def _published_cell(figures: Sequence[PublishedFigure]) -> str:
    lines = [
        f'<span title="{escape(figure.source)}">{figure.as_fraction}</span>'
        f"<br><small>{escape(figure.circumstances)}</small>"
        for figure in figures
    ]
    return f"<td class=published>{'<br>'.join(lines) or '-'}</td>"


def _blends_html(lines: Sequence[Sequence[str]]) -> str:
    rows = [_header_row(lines[0]), *map(_row, lines[1:])]
    note = "The share is 0 for the frozen CLIP and 1 for the trial; in brackets the 95% interval."
    return f'<div class="scroll"><table>{"".join(rows)}</table></div><p class=note>{note}</p>'


def _figure_html(figure: go.Figure | str) -> str:
    if isinstance(figure, str):
        return f"<p class=note>Not shown: {escape(figure)}</p>"
    options = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=options))


def _confused_pairs(data: StudyData) -> Iterator[str]:
    for score in data.scores[data.best.number] if data.best else ():
        split = score.splits[0]
        yield f"<h3>{escape(score.benchmark.name)}, {escape(split.split)}</h3>"
        for true, predicted, count in confused_pairs(split):
            names = f"{escape(split.classes[true])} taken for {escape(split.classes[predicted])}"
            strip = _example(score.benchmark.dataset, split, true, predicted)
            yield f"<p>{names}: {count} of {split.labels.count(true)} clips<br>{strip}</p>"


def confused_pairs(split: SplitScore) -> list[tuple[int, int, int]]:
    """The most frequent (true class, predicted class, number of clips), most frequent first."""
    counts = split.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(counts, axis=None, kind="stable")[::-1][:_NUM_CONFUSED_PAIRS]
    pairs = [(int(i // len(counts)), int(i % len(counts))) for i in order]
    return [
        (true, predicted, int(counts[true, predicted]))
        for true, predicted in pairs
        if counts[true, predicted]
    ]


def _example(dataset: str, split: SplitScore, true: int, predicted: int) -> str:
    """Frames of the first clip that was so confused, as an image inside the page."""
    rows = zip(split.clips, split.labels, split.ranked, strict=True)
    clip = next(clip for clip, label, best in rows if (label, best[0]) == (true, predicted))
    try:
        path = load_dataset(dataset, split.split).clips[clip].path
        image = base64.b64encode(strip_png(path)).decode()
    except VitaClipError as error:
        return f"<span class=note>no frames: {escape(str(error))}</span>"
    return f'<img alt="frames of {escape(Path(path).name)}" src="data:image/png;base64,{image}">'


def strip_png(path: str) -> bytes:
    """Frames spread evenly over a video, side by side, as PNG. Raises DataError."""
    from matplotlib.image import imsave

    from vitaclip.data.decode import decode_frames, video_info  # brings torch

    indices = np.linspace(0, video_info(path).num_frames - 1, _STRIP_FRAMES).round().astype(int)
    frames = decode_frames(path, indices.tolist(), short_side=_STRIP_HEIGHT)
    buffer = io.BytesIO()
    imsave(buffer, np.concatenate(list(frames), axis=1), format="png")
    return buffer.getvalue()


def _facts(data: StudyData) -> str:
    facts = {
        "started": data.info.created_at.isoformat(timespec="seconds"),
        "config hash": data.info.config_hash,
        **data.info.provenance,
        **{f"data {name}": found.digest for name, found in data.info.inputs.data.items()},
        **{f"backbone {name}": sha256 for name, sha256 in data.info.inputs.backbones.items()},
        **flatten(
            data.info.config.model_dump(mode="json", include={"search", "resources", "train"})
        ),
    }
    facts |= {
        f"ran on {line.partition(':')[0]}": line.partition(": ")[2]
        for line in code_lines(data.results)
    }
    rows = "".join(
        f'<tr><td>{escape(k)}</td><td class="text">{escape(str(v))}</td></tr>'
        for k, v in facts.items()
    )
    summary = "<summary>everything that decides the result</summary>"
    return f"<details>{summary}<table>{rows}</table></details>"
