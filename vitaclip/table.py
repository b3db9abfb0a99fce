"""Tables that fit: where a terminal is narrow, they lose their least important columns, not words.

A table is made narrower step by step until it fits: headers break at ``/`` and ``_``, lines
between columns go, texts end in an ellipsis, and then columns are left out, which a line below the
table tells.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table

_MIN_TEXT = 16
# characters around a column, with and without lines between columns
_LINED, _BARE = 3, 2


@dataclass(frozen=True)
class Column:
    """One column of a table.

    ``importance`` 0 is never left out; the larger the number, the sooner a column goes. A text
    stands at the left, and is cut where there is no room for it.
    """

    header: str
    importance: int = 0
    is_text: bool = False


@dataclass(frozen=True)
class FittedTable:
    """A table that Rich prints as wide as the console allows. Cells have no line breaks."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield self._fitted(options.max_width)

    def _fitted(self, width: int) -> Table:
        for min_text, breaks in itertools.product((None, _MIN_TEXT), ("", "/", "/_")):
            table = self._with_headers_broken_at(breaks)
            if table._min_width(_LINED, min_text) <= width:
                return table._render(width, _LINED)
        left_out: list[str] = []
        while table._min_width(_BARE) > width and (column := table._least_important()):
            left_out.insert(0, column.header.replace("\n", ""))
            table = table._without(column)
        return table._render(width, _BARE, left_out)

    def _with_headers_broken_at(self, breaks: str) -> FittedTable:
        columns = []
        for column in self.columns:
            header = column.header
            for character in breaks:
                header = header.replace(character, f"{character}\n")
            columns.append(replace(column, header=header))
        return replace(self, columns=columns)

    def _least_important(self) -> Column | None:
        """The column to go next, the rightmost of equals; None: all others stay."""
        column = max(reversed(self.columns), key=lambda column: column.importance)
        return column if column.importance else None

    def _without(self, column: Column) -> FittedTable:
        place = list(self.columns).index(column)
        rows = [[*row[:place], *row[place + 1 :]] for row in self.rows]
        kept = [*self.columns[:place], *self.columns[place + 1 :]]
        return replace(self, columns=kept, rows=rows)

    def _widths(self) -> list[int]:
        """What each column needs for its longest cell."""
        return [
            max(
                *(cell_len(line) for line in column.header.split("\n")),
                *(cell_len(row[place]) for row in self.rows),
                0,
            )
            for place, column in enumerate(self.columns)
        ]

    def _min_width(self, padding: int, min_text: int | None = _MIN_TEXT) -> int:
        """In characters. ``min_text``: texts may be cut to so much; None: they stay whole."""
        needs = [
            min(need, min_text) if column.is_text and min_text else need
            for column, need in zip(self.columns, self._widths(), strict=True)
        ]
        return sum(needs) + padding * len(needs) + 1

    def _render(self, width: int, padding: int, left_out: Sequence[str] = ()) -> Table:
        caption = f"left out for want of room: {', '.join(left_out)}" if left_out else None
        table = Table(title=self.title, caption=caption)
        if padding == _BARE:
            table = Table(
                title=self.title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
            )
        free = width - self._min_width(padding)
        for column, need in zip(self.columns, self._widths(), strict=True):
            shown = min(need, _MIN_TEXT + free) if column.is_text else need
            free -= max(0, shown - _MIN_TEXT) if column.is_text else 0
            table.add_column(
                column.header,
                justify="left" if column.is_text else "right",
                width=shown,
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in self.rows:
            table.add_row(*row)
        return table
