"""``vitaclip report``, also ``python -m orchestrator.report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.run import run_alone


def report(
    study: Annotated[str, Argument(metavar="STUDY")],
    output: Annotated[
        Path | None, Option(parser=Path, help="folder to write to (default: reports/STUDY)")
    ] = None,
    latex: Annotated[
        bool, Option("--latex", help="print the table for a paper instead (booktabs)")
    ] = False,
    csv: Annotated[bool, Option("--csv", help="print the table of all trials as CSV")] = False,
) -> None:
    """Writes a study's results as one HTML page.

    The page needs no network. Beside it stand pictures of its figures.
    """
    if latex or csv:
        from orchestrator.commands.paper_table import print_table

        print_table(study, latex=latex, csv=csv)
    else:
        from orchestrator.commands.report import report_study

        report_study(study, output or Path("reports") / study)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(report, "python -m orchestrator.report", arguments)


if __name__ == "__main__":
    sys.exit(main())
