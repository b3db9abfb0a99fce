"""Pieces of a page. Every text is data until it is escaped here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

# Both pages look the same: the report, and the one that follows a study.
STYLE = files("orchestrator.reporting").joinpath("page.css").read_text(encoding="utf-8")


def table(rows: Sequence[str], name: str, kind: str = "") -> str:
    """Rows as a table that scrolls where it is wider than the page, by the keyboard, too.

    Args:
        rows: as :func:`row` and :func:`header_row` make them.
        name: what it is a table of, for those who hear the page.
        kind: its class in the style sheet.
    """
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        f'<table class="{kind}">{"".join(rows)}</table></div>'
    )


def header_row(names: Sequence[str]) -> str:
    """Names may break at their dots, slashes and underscores, so that wide tables fit the page."""
    cells = (re.sub(r"([./_])", r"\1<wbr>", escape(name)) for name in names)
    return f"<tr>{''.join(f'<th>{cell}</th>' for cell in cells)}</tr>"


def row(cells: Sequence[str], trial: int | None = None) -> str:
    """One line; ``trial``: the trial that it tells of."""
    mark = "" if trial is None else f' data-trial="{trial}"'
    return f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def note(text: str) -> str:
    """A remark below what it is about."""
    return f"<p class=note>{escape(text)}</p>"
