"""``vitaclip certify``, also ``python -m orchestrator.certify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.options import Json
from vitaclip.cli.run import run_alone


def certify(
    checkpoint: Annotated[
        Path, Argument(parser=Path, metavar="CHECKPOINT", help="a checkpoint folder")
    ],
    paper: Annotated[str, Option(metavar="METHOD", help="whose figures, such as vita_clip")],
    benchmark: Annotated[
        list[str] | None,
        Option(metavar="BENCHMARK...", help="such as zero_shot/hmdb51 (default: all of them)"),
    ] = None,
    json: Json = False,
) -> int:
    """Scores a checkpoint as a paper says, and compares.

    Each published figure is inside the measured 95% interval or outside. What differs from the
    published protocol is listed, and so is what could not be scored. Ends with 0 if every figure
    that was scored is inside, with 1 if one is outside, and with 2 if none could be scored.
    """
    from orchestrator.commands.certify import certify_checkpoint

    return certify_checkpoint(checkpoint, paper, benchmark or (), as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(certify, "python -m orchestrator.certify", arguments)


if __name__ == "__main__":
    sys.exit(main())
