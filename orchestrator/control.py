"""``python -m orchestrator.control STUDY``: pauses a study, or gives it more trials or points,
while it runs.

Its driver looks at ``<study>/control/`` about once a second. Trials that run are left alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from rich.console import Console

from orchestrator import command
from orchestrator.config import Scalar
from orchestrator.search.proposals import proposer_of
from orchestrator.search.search_space import check_point
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.study_record import StudyRecord
from orchestrator.yaml_text import load_yaml
from vitaclip.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.control", description=__doc__)
    parser.add_argument("study")
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--pause", action="store_true", help="start no further trial until --resume")
    state.add_argument("--resume", action="store_true")
    parser.add_argument("--num-trials", type=int, help="the study's number of trials from now on")
    parser.add_argument(
        "--point",
        action="append",
        default=[],
        metavar="{KEY: VALUE, ...}",
        help="try this point next (YAML)",
    )
    return command.run(parser, _edit, arguments)


def _edit(options: argparse.Namespace, console: Console) -> None:
    record = command.open_study(options.study)
    change = ControlChange(
        paused=options.pause if options.pause or options.resume else None,
        num_trials=None
        if options.num_trials is None
        else _checked_number(options.num_trials, record),
        points=tuple(_parse_point(text, record) for text in options.point),
    )
    if change != ControlChange():
        record.add_change(change)
    control = record.control()
    console.print(
        f"{record.name}: {'paused' if control.paused else 'not paused'}, "
        f"{control.num_trials} trials, {len(control.points)} extra points",
    )


def _checked_number(number: int, record: StudyRecord) -> int:
    fewest, most = max(1, len(record.trials())), proposer_of(record.info.config).max_trials
    if not fewest <= number <= most:
        end = "or more" if most == math.inf else f"to {most}, all that this search can have"
        raise InputError(
            f"--num-trials: found {number}, allowed are {fewest} (already proposed) {end}"
        )
    return number


def _parse_point(text: str, record: StudyRecord) -> dict[str, Scalar]:
    point = load_yaml(text, f"--point {text[:80]}")
    if not isinstance(point, dict):
        raise InputError(f"--point {text}: allowed is a mapping such as '{{prompts.depth: 2}}'")
    check_point("--point", point, record.info.config)
    return point


if __name__ == "__main__":
    sys.exit(main())
