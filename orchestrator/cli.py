"""The command ``vitaclip``: the orchestrator's commands, and the library's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

from typer import Exit, Option

from orchestrator import experiments
from orchestrator.certify import certify
from orchestrator.compare import compare
from orchestrator.control import control
from orchestrator.evaluate import evaluate
from orchestrator.ls import ls
from orchestrator.published import published
from orchestrator.replay import replay
from orchestrator.report import report
from orchestrator.schema import schema
from orchestrator.serve import serve
from orchestrator.show import show
from orchestrator.sweep import sweep
from orchestrator.sync import sync
from vitaclip.cli.app import app as library
from vitaclip.cli.run import new_app, run

app = new_app(
    sweep,
    ls,
    show,
    compare,
    evaluate,
    certify,
    published,
    report,
    serve,
    replay,
    control,
    sync,
    schema,
    help="Sweeps Vita-CLIP's prompts over video, and shows what came of it.",
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"vitaclip {version('vitaclip-orchestrator')}")
        raise Exit


@app.callback(help=app.info.help)
def _options(
    version: Annotated[
        bool,
        Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that stand before any command."""


app.add_typer(experiments.app, name="experiments")
app.add_typer(library)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, or shows what there is; see :func:`vitaclip.cli.run.run`."""
    return run(app, "vitaclip", (sys.argv[1:] if arguments is None else arguments) or ["--help"])


if __name__ == "__main__":
    sys.exit(main())
