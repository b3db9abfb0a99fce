"""``vitaclip report``, also ``python -m orchestrator.report``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.run import run_alone
from vitaclip.errors import InputError


def report(
    study: Annotated[str, Argument(metavar="STUDY")],
    output: Annotated[
        Path | None,
        Option(
            parser=Path,
            help="folder to write to (default: reports/STUDY, or reports/tensorboard/STUDY)",
        ),
    ] = None,
    latex: Annotated[
        bool, Option("--latex", help="print the table for a paper instead (booktabs)")
    ] = False,
    csv: Annotated[bool, Option("--csv", help="print the table of all trials as CSV")] = False,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="write TensorBoard's event files instead")
    ] = False,
) -> None:
    """Writes a study's results as one HTML page.

    The page needs no network. Beside it stand pictures of its figures.
    """
    _check_one_at_a_time({"--latex": latex, "--csv": csv, "--tensorboard": tensorboard})
    if latex:
        from orchestrator.commands.paper_table import print_latex

        print_latex(study)
    elif csv:
        from orchestrator.commands.paper_table import print_csv

        print_csv(study)
    elif tensorboard:
        from orchestrator.commands.event_files import export_event_files

        export_event_files(study, output or Path("reports/tensorboard") / study)
    else:
        from orchestrator.commands.report import report_study

        report_study(study, output or Path("reports") / study)


def _check_one_at_a_time(options: Mapping[str, bool]) -> None:
    found = [name for name, is_wanted in options.items() if is_wanted]
    if len(found) > 1:
        raise InputError(f"found {' and '.join(found)}, allowed is one of them at a time")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(report, "python -m orchestrator.report", arguments)


if __name__ == "__main__":
    sys.exit(main())
