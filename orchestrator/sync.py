"""``vitaclip sync``, also ``python -m orchestrator.sync``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument

from vitaclip.cli.run import run_alone


def sync(
    studies: Annotated[
        list[str],
        Argument(metavar="STUDY", help="studies of the store that no sweep is running"),
    ],
) -> None:
    """Brings the tracking service up to a study's record.

    A sweep does so itself, unless it could not reach the service.
    """
    from orchestrator.commands.sync import sync_studies

    sync_studies(studies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(sync, "python -m orchestrator.sync", arguments)


if __name__ == "__main__":
    sys.exit(main())
