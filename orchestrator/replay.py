"""``vitaclip replay``, also ``python -m orchestrator.replay``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument

from vitaclip.cli.run import run_alone


def replay(study: Annotated[str, Argument(metavar="STUDY")]) -> None:
    """Takes a study's decisions again and compares them.

    Everything comes from the record.
    """
    from orchestrator.commands.replay import replay_study

    replay_study(study)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(replay, "python -m orchestrator.replay", arguments)


if __name__ == "__main__":
    sys.exit(main())
