"""Tables lose columns where a terminal is narrow, and never break a word."""

from __future__ import annotations

from io import StringIO

import pytest

from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

COLUMNS = (
    Column("trial"),
    Column("num_context", importance=2),
    Column("supervised/quickstart", importance=1),
    Column("state", importance=3, is_text=True),
    Column("minutes", importance=4),
)
ROWS = [
    ["7", "16", "0.525", "complete, on the Pareto front", "0.6"],
    ["12", "4", "0.400", "pruned", "12.5"],
]


def printed(width: int) -> str:
    file = StringIO()
    Terminal(file=file, width=width).print(FittedTable("a study", COLUMNS, ROWS))
    return file.getvalue()


def test_with_room_everything_stands_in_full() -> None:
    text = printed(140)
    for header in (column.header for column in COLUMNS):
        assert header in text
    assert "complete, on the Pareto front" in text
    assert "left out" not in text


@pytest.mark.parametrize("width", [80, 60, 40, 30])
def test_every_line_fits_and_numbers_stay_whole(width: int) -> None:
    text = printed(width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for row in ROWS:
        assert row[0] in text.split()
    assert not {"0.5", "0.52", "prune", "minute"} & set(text.split())


def test_the_least_important_columns_go_first_and_are_named() -> None:
    text = printed(44)
    assert "minutes" in text.split("left out for want of room:")[1]
    assert "0.525" in text
    assert "0.525" not in printed(20)


def test_headers_break_at_slashes_before_columns_go() -> None:
    text = printed(62)
    assert "supervised/" in text
    assert "quickstart" in text
    assert "left out" not in text
