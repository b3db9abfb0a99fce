"""A study's trials as a table for a paper or a spreadsheet."""

from __future__ import annotations

from orchestrator.commands import common
from orchestrator.reporting.paper_table import csv_table, latex_table
from vitaclip.terminal import shown


def print_latex(study: str) -> None:
    """Prints the table for a paper. Raises InputError."""
    print(shown(latex_table(common.read_data(common.open_record(study)))), end="")


def print_csv(study: str) -> None:
    """Prints the table of all trials. Raises InputError."""
    print(shown(csv_table(common.read_data(common.open_record(study)))), end="")
