"""``vitaclip experiments``: what comes with this project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context

from vitaclip.cli.options import Json
from vitaclip.cli.run import new_app


def copy(
    name: Annotated[str, Argument(metavar="NAME", help="as `vitaclip experiments` lists it")],
    destination: Annotated[
        Path, Argument(parser=Path, metavar="DEST", help="a file to write, or a folder")
    ] = Path(),
) -> None:
    """Copies an experiment, to be changed and swept."""
    from orchestrator.commands.experiments import copy_experiment

    copy_experiment(name, destination)


app = new_app(copy)


@app.callback(invoke_without_command=True)
def experiments(context: Context, json: Json = False) -> None:
    """Lists the experiments that come with this project."""
    if context.invoked_subcommand is None:
        from orchestrator.commands.experiments import list_experiments

        list_experiments(as_json=json)
