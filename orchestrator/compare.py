"""``vitaclip compare``, also ``python -m orchestrator.compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument

from vitaclip.cli.options import Json
from vitaclip.cli.run import run_alone

Trial = Annotated[str, Argument(metavar="STUDY/NUMBER")]


def compare(first: Trial, second: Trial, json: Json = False) -> None:
    """Compares two trials, and tests their difference."""
    from orchestrator.commands.compare import compare_trials

    compare_trials(first, second, as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(compare, "python -m orchestrator.compare", arguments)


if __name__ == "__main__":
    sys.exit(main())
