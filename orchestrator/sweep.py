"""``vitaclip sweep``, also ``python -m orchestrator.sweep``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import print_exc
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.run import run_alone
from vitaclip.errors import VitaClipError


def sweep(
    file: Annotated[Path, Argument(parser=Path, metavar="FILE.yaml")],
    overlay: Annotated[
        list[Path] | None, Option(parser=Path, metavar="FILE", help="laid over FILE.yaml, in order")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="overrides any field, e.g. train.epochs=3"),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="print the resolved study and start nothing")
    ] = False,
    traceback: Annotated[
        bool, Option("--traceback", help="show where in the code an input error arose")
    ] = False,
) -> int:
    """Searches, trains and benchmarks what a file asks for.

    Run it again after Ctrl-C or a crash: it goes on from the study's record and repeats no
    finished trial.
    """
    from orchestrator.commands.sweep import sweep_file

    try:
        return sweep_file(file, overlay or (), overrides or (), dry_run=dry_run)
    except VitaClipError:
        if not traceback:
            raise
        print_exc()
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(sweep, "python -m orchestrator.sweep", arguments)


if __name__ == "__main__":
    sys.exit(main())
