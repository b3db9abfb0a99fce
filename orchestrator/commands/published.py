"""Figures that others printed, and where each was read."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.commands import common
from orchestrator.evaluation.published import PublishedFigure, read_published
from vitaclip.errors import InputError, suggest
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

# left out where the command names one
_BENCHMARK = Column("benchmark")
_COLUMNS = (
    Column("method", is_text=True),
    _BENCHMARK,
    Column("metric", importance=1),
    Column("percent"),
    Column("frames", importance=2),
    Column("views", importance=2),
    Column("splits", importance=3),
    Column("texts", importance=7, is_text=True),
    Column("trained on", importance=4),
    Column("origin", importance=5),
    Column("source", importance=6, is_text=True),
    Column("notes", importance=8, is_text=True),
)


def list_published(benchmark: str | None, *, as_json: bool) -> None:
    """Prints the figures of a benchmark, or of all. Raises InputError if it has none."""
    known = read_published()
    names = dict.fromkeys(figure.benchmark for figure in known)
    if benchmark is not None and benchmark not in names:
        raise InputError(
            f"found {benchmark!r}{suggest(benchmark, names)}, there are figures of: "
            f"{', '.join(names)}"
        )
    figures = [figure for figure in known if benchmark in (None, figure.benchmark)]
    if as_json:
        common.print_json([figure.model_dump(mode="json") for figure in figures])
    else:
        Terminal().print(_table(benchmark, figures))


def _table(benchmark: str | None, figures: Sequence[PublishedFigure]) -> FittedTable:
    rows = [dict(zip(_COLUMNS, _cells(figure), strict=True)) for figure in figures]
    columns = [column for column in _COLUMNS if benchmark is None or column is not _BENCHMARK]
    title = "as published" if benchmark is None else f"{benchmark}, as published"
    return FittedTable(title, columns, [[row[column] for column in columns] for row in rows])


def _cells(figure: PublishedFigure) -> list[str]:
    splits = figure.splits
    return [
        figure.method,
        figure.benchmark,
        figure.metric,
        figure.printed,
        figure.frames or "-",
        figure.views or "-",
        f"{len(splits)} splits" if len(splits) > 1 else "".join(splits) or "-",
        figure.texts or "-",
        figure.trained_on or "-",
        figure.origin,
        figure.source,
        figure.notes,
    ]
