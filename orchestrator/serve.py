"""``vitaclip serve``, also ``python -m orchestrator.serve``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument, Option

from vitaclip.cli.run import run_alone

DEFAULT_PORT = 8400


def serve(
    study: Annotated[str, Argument(metavar="STUDY")],
    port: Annotated[
        int, Option(min=0, max=65535, help="port on this machine; 0: any that is free")
    ] = DEFAULT_PORT,
    store: Annotated[
        str | None, Option(help="a folder or s3://bucket/prefix (default: VITACLIP_STORE)")
    ] = None,
) -> None:
    """Shows a study in the browser, while it runs.

    The page is read from the record alone, so the study may run elsewhere. It is for browsers of
    this machine only, and changes nothing.
    """
    from orchestrator.commands.serve import serve_study

    serve_study(study, port=port, store_uri=store)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(serve, "python -m orchestrator.serve", arguments)


if __name__ == "__main__":
    sys.exit(main())
