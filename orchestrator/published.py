"""``vitaclip published``, also ``python -m orchestrator.published``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Argument

from vitaclip.cli.options import Json
from vitaclip.cli.run import run_alone


def published(
    benchmark: Annotated[
        str | None, Argument(metavar="BENCHMARK", show_default=False, help="zero_shot/hmdb51")
    ] = None,
    json: Json = False,
) -> None:
    """Lists figures that papers print, with their source."""
    from orchestrator.commands.published import list_published

    list_published(benchmark, as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(published, "python -m orchestrator.published", arguments)


if __name__ == "__main__":
    sys.exit(main())
