"""``python -m orchestrator.control STUDY``: pauses a study, or gives it more trials or points, while it runs.

Its driver looks at ``<study>/control.json`` before each new trial. Trials that run are left alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from orchestrator import command
from orchestrator.config import Scalar
from orchestrator.search.search_space import check_point
from orchestrator.storage.study_record import StudyRecord
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
        "--point", action="append", default=[], metavar="{KEY: VALUE, ...}", help="try this point next (YAML)"
    )
    return command.run(parser, _edit, arguments)


def _edit(options: argparse.Namespace, console: Console) -> None:
    record = command.open_study(options.study)
    control = record.control()
    changes: dict[str, object] = {}
    if options.pause or options.resume:
        changes["paused"] = bool(options.pause)
    if options.num_trials is not None:
        changes["num_trials"] = _checked_number(options.num_trials, record)
    if options.point:
        changes["points"] = (*control.points, *(_parse_point(text, record) for text in options.point))
    control = control.model_copy(update=changes)
    if changes:
        record.write_control(control)
    console.print(
        f"{record.name}: {'paused' if control.paused else 'not paused'}, "
        f"{control.num_trials or record.info.config.search.num_trials} trials, "
        f"{len(control.points)} extra points",
        highlight=False,
    )


def _checked_number(number: int, record: StudyRecord) -> int:
    proposed = len(record.trials())
    if number < max(1, proposed):
        raise InputError(
            f"--num-trials: found {number}, allowed are {max(1, proposed)} (already proposed) or more"
        )
    return number


def _parse_point(text: str, record: StudyRecord) -> dict[str, Scalar]:
    try:
        point = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"--point {text}: is not YAML: {error}") from None
    if not isinstance(point, dict):
        raise InputError(f"--point {text}: allowed is a mapping such as '{{prompts.depth: 2}}'")
    check_point("--point", point, record.info.config)
    return point


if __name__ == "__main__":
    sys.exit(main())
