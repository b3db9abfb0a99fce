"""One HTML page that needs no network, and pictures of its figures.

The page, the terminal's table and MLflow read the same records.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from orchestrator.display.tables import code_lines
from orchestrator.dotted import flatten
from orchestrator.reporting.confusions import confusions_html
from orchestrator.reporting.figures import figures, min_width
from orchestrator.reporting.html import STYLE, note
from orchestrator.reporting.optuna_view import optuna_study
from orchestrator.reporting.pictures import write_pictures
from orchestrator.reporting.study_data import StudyData
from orchestrator.reporting.tables import tables

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
        *(note(f"Left out: {problem}") for problem in data.unreadable),
    ]
    for title, html in tables(data):
        parts += [f"<h2>{escape(title)}</h2>", html]
    for title, figure in figures(data).items():
        parts += [f"<h2>{escape(title)}</h2>", _figure_html(figure)]
    parts += ["<h2>Most confused pairs of the best trial</h2>", *confusions_html(data)]
    parts += ["<h2>What it ran on</h2>", _facts(data)]
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.name)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _figure_html(figure: go.Figure | str) -> str:
    if isinstance(figure, str):
        return note(f"Not shown: {figure}")
    options = {"displaylogo": False, "responsive": True}
    html = figure.to_html(full_html=False, include_plotlyjs=False, config=options)
    return f'<div class="scroll"><div style="min-width: {min_width(figure)}px">{html}</div></div>'


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
        f'<tr><td class="text">{escape(k)}</td><td class="text">{escape(str(v))}</td></tr>'
        for k, v in facts.items()
    )
    summary = "<summary>everything that decides the result</summary>"
    return f"<details>{summary}<table>{rows}</table></details>"
