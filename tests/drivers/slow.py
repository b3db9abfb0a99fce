"""Runs every test that is marked slow, and prints one table: what passed, failed or was skipped and
why, and how long it took (``make test-slow``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest


@dataclass
class Row:
    """What became of a test."""

    outcome: str = "passed"
    seconds: float = 0.0
    reason: str = ""


class Table:
    """A plugin of pytest that keeps a row for each test."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for the setup, the call and the teardown of each test."""
        row = self.rows.setdefault(report.nodeid, Row())
        row.seconds += report.duration
        if report.skipped:
            row.outcome, row.reason = "skipped", _reason(report)
        elif report.failed:
            row.outcome = "failed"

    def lines(self) -> list[str]:
        """As they are printed, and last the sums."""
        shown = [
            f"{row.outcome:8}{row.seconds:8.1f} s  {name.removeprefix('tests/')}"
            + (f"  ({row.reason})" if row.reason else "")
            for name, row in sorted(self.rows.items())
        ]
        counts = [
            f"{sum(row.outcome == outcome for row in self.rows.values())} {outcome}"
            for outcome in ("passed", "failed", "skipped")
        ]
        total_s = sum(row.seconds for row in self.rows.values())
        return [*shown, f"slow tests: {', '.join(counts)}, {total_s / 60:.1f} min"]


def _reason(report: pytest.TestReport) -> str:
    place = report.longrepr
    return str(place[2]).removeprefix("Skipped: ") if isinstance(place, tuple) else str(place)


def main() -> int:
    """Returns pytest's exit code; arguments are pytest's own."""
    table = Table()
    code = pytest.main(["-m", "slow", "--durations=0", *sys.argv[1:]], plugins=[table])
    print("", *table.lines(), sep="\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
