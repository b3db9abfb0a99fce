"""``vitaclip control``, also ``python -m orchestrator.control``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.run import run_alone
from vitaclip.errors import InputError


def control(
    study: Annotated[str, Argument(metavar="STUDY")],
    pause: Annotated[bool, Option("--pause", help="start no further trial until --resume")] = False,
    resume: Annotated[bool, Option("--resume", help="start trials again")] = False,
    num_trials: Annotated[
        int | None, Option(help="the study's number of trials from now on")
    ] = None,
    point: Annotated[
        list[str] | None, Option(metavar="{KEY: VALUE, ...}", help="try this point next (YAML)")
    ] = None,
) -> None:
    """Pauses a running study, or gives it more trials.

    Its driver looks at <study>/control/ about once a second. Trials that run are left alone.
    """
    from orchestrator.commands.control import change_study

    if pause and resume:
        raise InputError("found --pause and --resume, allowed is one of them")
    paused = pause if pause or resume else None
    change_study(study, paused=paused, num_trials=num_trials, points=point or ())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(control, "python -m orchestrator.control", arguments)


if __name__ == "__main__":
    sys.exit(main())
