"""``vitaclip ls``, also ``python -m orchestrator.ls``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument

from vitaclip.cli.options import Json
from vitaclip.cli.run import run_alone


def ls(
    study: Annotated[str | None, Argument(metavar="STUDY", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Lists studies, or the trials of one, best first."""
    from orchestrator.commands.ls import list_studies, list_trials

    if study is None:
        list_studies(as_json=json)
    else:
        list_trials(study, as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(ls, "python -m orchestrator.ls", arguments)


if __name__ == "__main__":
    sys.exit(main())
