"""The experiments that come with this project: ``experiments/`` in the repository, of which
``shipped`` is a link, and a folder of its own in a wheel.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.commands import common
from vitaclip.errors import InputError, suggest
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

SHIPPED = Path(__file__).parents[1] / "shipped"
SCHEMA = "study.schema.json"  # for editors; the experiments name it


def list_experiments(*, as_json: bool) -> None:
    """Prints each experiment's name and what it asks."""
    asked = {name: _first_line(path) for name, path in experiments().items()}
    if as_json:
        common.print_json([{"name": name, "about": text} for name, text in asked.items()])
    else:
        columns = (Column("experiment"), Column("about", is_text=True))
        title = "vitaclip experiments copy NAME"
        Terminal().print(FittedTable(title, columns, list(asked.items())))


def copy_experiment(name: str, destination: Path) -> None:
    """Copies an experiment to a file, or into a folder, with the schema that editors read.

    Raises:
        InputError: there is no such experiment, or the file exists already.
    """
    found = experiments()
    if name not in found:
        raise InputError(
            f"{name!r} is no experiment{suggest(name, found)}; `vitaclip experiments` lists them"
        )
    target = destination / found[name].name if destination.is_dir() else destination
    if target.exists():
        raise InputError(f"{target} exists already; name another file, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found[name], target)
    if not (target.parent / SCHEMA).exists():
        shutil.copyfile(SHIPPED / SCHEMA, target.parent / SCHEMA)
    Terminal().print(str(target), soft_wrap=True)


def experiments() -> dict[str, Path]:
    """Name -> file; overlays come last, as ``overlays/NAME``."""
    paths = [*sorted(SHIPPED.glob("*.yaml")), *sorted(SHIPPED.glob("*/*.yaml"))]
    return {path.relative_to(SHIPPED).with_suffix("").as_posix(): path for path in paths}


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
