"""What was measured, as tables, with the targets of issue 15."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.search import early_stopping, regret, slot_use
from benchmarks.search.curves import NUM_CURVES, NUM_EPOCHS
from benchmarks.search.this_project import OURS

Values = NDArray[np.float64]  # one for each seed
Figures = Mapping[str, Values]  # by name
_DIGITS = {"epochs": 0, "to the end": 1, "wall": 1, "slot use": 3}


def print_early_stopping(found: Mapping[early_stopping.Key, Figures], console: Console) -> None:
    """Two tables for each kind of curves."""
    for kind in dict.fromkeys(kind for kind, _, _ in found):
        title = f"{NUM_CURVES} learning curves of {NUM_EPOCHS} epochs, {kind}"
        table = _table(title, ["slots", "search"], early_stopping.FIGURES)
        here = {(slots, name): f for (other, slots, name), f in found.items() if other == kind}
        _add_rows(table, here)
        console.print(table, _against_others(kind, here))


def _against_others(kind: str, here: Mapping[tuple[int, str], Figures]) -> Table:
    """How much longer this project takes, and how much worse what it chooses is."""
    others = list(dict.fromkeys(name for _, name in here if OURS not in name))
    title = f"{kind}: wall time / theirs (target: at most 1.05 of the best), regret - theirs"
    table = _table(title, ["slots", "search"], others)
    for (slots, name), figures in here.items():
        if OURS in name:
            table.add_row(
                str(slots), name, *(_against(figures, here[slots, other]) for other in others)
            )
    return table


def _against(ours: Figures, theirs: Figures) -> str:
    ratio = ours["wall"].mean() / theirs["wall"].mean()
    return f"{ratio:.2f}, {_cell(ours['regret'] - theirs['regret'], 4)}"


def print_slot_use(found: Mapping[slot_use.Key, Figures], console: Console) -> None:
    """A row for each distribution, a column for each search."""
    names = list(dict.fromkeys(name for _, name in found))
    title = (
        f"slot use of {slot_use.NUM_TRIALS} trials on {slot_use.SLOTS} slots, none stops early "
        f"(target: at most 0.02 below {slot_use.GREEDY})"
    )
    table = _table(title, ["durations"], names)
    for kind in dict.fromkeys(kind for kind, _ in found):
        table.add_row(kind, *(_cells(found[kind, name])[0] for name in names))
    console.print(table)


def print_regret(found: Mapping[regret.Key, Figures], console: Console) -> None:
    """Rows of searches, in sections of functions."""
    title = (
        f"regret of {regret.NUM_TRIALS} trials on {regret.SLOTS} slots "
        f"(target: at most a standard error above {regret.REFERENCE})"
    )
    table = _table(title, ["function", "search"], list(regret.FIGURES))
    _add_rows(table, found)
    console.print(table)


def _table(title: str, texts: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(*texts, title=title)
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _add_rows(table: Table, found: Mapping[tuple[Any, str], Figures]) -> None:
    """A section for each first part of the keys."""
    for _, rows in itertools.groupby(found.items(), key=lambda item: item[0][0]):
        table.add_section()
        for (section, name), figures in rows:
            table.add_row(str(section), name, *_cells(figures))


def _cells(figures: Figures) -> list[str]:
    return [_cell(values, _DIGITS.get(name, 4)) for name, values in figures.items()]


def _cell(values: Values, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {standard_error(values):.{digits}f}"


def standard_error(values: Values) -> float:
    """Of the mean; 0 for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
