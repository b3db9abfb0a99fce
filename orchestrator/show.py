"""``vitaclip show``, also ``python -m orchestrator.show``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.options import Json
from vitaclip.cli.run import run_alone


def show(
    what: Annotated[str, Argument(metavar="STUDY[/NUMBER]")],
    json: Json = False,
    log: Annotated[
        bool, Option("--log", help="print a trial's log, one JSON object a line")
    ] = False,
) -> None:
    """Shows everything on record of a study or of one trial."""
    from orchestrator.commands import show as command

    if "/" not in what:
        command.show_study(what, as_json=json)
    elif log:
        command.show_log(what)
    else:
        command.show_trial(what, as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(show, "python -m orchestrator.show", arguments)


if __name__ == "__main__":
    sys.exit(main())
