"""``python -m orchestrator.show STUDY[/NUMBER]``: everything on record of a study or of one
trial.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator import command
from orchestrator.dotted import flatten
from orchestrator.storage.study_record import StudyRecord
from vitaclip.terminal import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.show", description=__doc__)
    parser.add_argument("what", metavar="STUDY[/NUMBER]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--log", action="store_true", help="print a trial's log, one JSON object a line"
    )
    return command.run(parser, _show, arguments)


def _show(options: argparse.Namespace, console: Console) -> None:
    if "/" in options.what:
        study, number = command.parse_trial(options.what)
        if options.log:
            print(shown(command.open_study(study).trial(number).log), end="")
            return
        _show_trial(command.open_study(study), number, console, as_json=options.json)
    else:
        _show_study(command.open_study(options.what), console, as_json=options.json)


def _show_study(record: StudyRecord, console: Console, *, as_json: bool) -> None:
    info = record.info.model_dump(mode="json") | {"control": asdict(record.control())}
    if as_json:
        command.print_json(console, info)
    else:
        console.print(_key_value_table(record.name, flatten(info)))


def _show_trial(record: StudyRecord, number: int, console: Console, *, as_json: bool) -> None:
    content = trial_content(record, number)
    if as_json:
        command.print_json(console, content)
        return
    history = content.pop("history")
    console.print(_key_value_table(f"{record.name}/{number}", flatten(content)))
    if history:
        console.print(_history_table(history))


def trial_content(record: StudyRecord, number: int) -> dict[str, Any]:
    """A trial's proposal, its result so far, its history, and the scores added since."""
    trial = record.trial(number)
    content, result = trial.info.model_dump(mode="json"), trial.result
    content |= result.model_dump(mode="json") if result else {"state": "not finished"}
    content["history"] = list(result.history) if result else trial.history
    content["benchmarks"] = trial.scores.metrics()
    content["attempts"] = {
        str(attempt.number): f"{attempt.began_at:%Y-%m-%d %H:%M:%S} on {attempt.host}, "
        f"code {attempt.code.name}"
        for attempt in trial.attempts
    }
    return content


def _key_value_table(title: str, values: Mapping[str, Any]) -> Table:
    table = Table("field", "value", title=title)
    for key, value in values.items():
        table.add_row(key, str(value))
    return table


def _history_table(history: Sequence[Mapping[str, float]]) -> Table:
    columns = sorted({key for metrics in history for key in metrics} - {"epoch"})
    table = Table("epoch", *columns, title="epochs")
    for metrics in history:
        cells = (f"{metrics[key]:.4g}" if key in metrics else "-" for key in columns)
        table.add_row(f"{metrics['epoch']:.0f}", *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
