"""Published figures beside measured ones, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.evaluation.published import figures_beside
from vitaclip.config import DataConfig
from vitaclip.table import Column, FittedTable

TITLE = "as published, not measured here"


def published_table(benchmarks: Iterable[str], data: DataConfig) -> FittedTable | None:
    """A row for each method and its circumstances; None: no benchmark has figures.

    Args:
        benchmarks: their names, such as ``zero_shot/hmdb51``.
        data: of the training that they stand beside.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for benchmark in benchmarks:
        for method, figures in figures_beside(benchmark, data).items():
            for figure in figures:
                cells = rows.setdefault((method, figure.circumstances), {})
                known = cells.get(benchmark)
                cells[benchmark] = f"{known}, {figure.as_fraction}" if known else figure.as_fraction
    if not rows:
        return None
    found = list(dict.fromkeys(benchmark for cells in rows.values() for benchmark in cells))
    columns = [
        Column("method", is_text=True),
        Column("as", importance=1, is_text=True),
        *(Column(benchmark, importance=2) for benchmark in found),
    ]
    methods = list(dict.fromkeys(method for method, _ in rows))
    ordered = sorted(rows, key=lambda row: methods.index(row[0]))
    return FittedTable(
        TITLE, columns, [[*row, *(rows[row].get(name, "-") for name in found)] for row in ordered]
    )
