"""A study's trials as a table for a paper or a spreadsheet."""

from __future__ import annotations

from orchestrator.commands import common
from orchestrator.reporting.paper_table import csv_table, latex_table
from orchestrator.reporting.study_data import read_study
from vitaclip.errors import InputError
from vitaclip.terminal import shown


def print_table(study: str, *, latex: bool, csv: bool) -> None:
    """Prints the one table that was asked for. Raises InputError if both were."""
    if latex and csv:
        raise InputError("found --latex and --csv, allowed is one of them at a time")
    data = read_study(common.open_record(study))
    for problem in data.unreadable:
        common.warn(f"left out: {problem}")
    print(shown(latex_table(data) if latex else csv_table(data)), end="")
