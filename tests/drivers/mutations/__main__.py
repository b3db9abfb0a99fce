"""Breaks each promise of the README once, in a copy of this repository, and shows that a test
fails.

``make mutations``, or ``python -m tests.drivers.mutations [WORD ...]`` for those whose promise or
file holds a word. Tests of a mutation must pass without it, and fail, not merely be impossible to
run, with it. Ends with code 1 if one survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from testing.paths import ROOT
from tests.drivers.mutations.mutation import Mutation, read_mutations

_COPIED = (
    "vitaclip",
    "orchestrator",
    "testing",
    "tests",
    "experiments",
    "pyproject.toml",
    "README.md",
)
_TESTS_FAILED = 1  # pytest's code; others mean that no test has run
_TIMEOUT_S = 300  # of one test: a mutation may make it hang, which is a failure too


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drivers.mutations", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    words = parser.parse_args(arguments).words
    mutations = [mutation for mutation in read_mutations() if mutation.is_about(words)]
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        tree = _copy(Path(folder) / "tree")
        sound = _pytest(tree, sorted({test for mutation in mutations for test in mutation.tests}))
        if sound.returncode:
            console.print(sound.stdout, markup=False)
            console.print("without any mutation these tests must pass")
            return 1
        verdicts = []
        for mutation in mutations:
            verdicts.append(_verdict(tree, mutation))
            console.print(f"{verdicts[-1]}: {mutation.promise}", markup=False)
    console.print(_table(mutations, verdicts))
    return 0 if set(verdicts) == {"caught"} else 1


def _copy(tree: Path) -> Path:
    tree.mkdir()
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree)
    return tree


def _verdict(tree: Path, mutation: Mutation) -> str:
    with _applied(tree, mutation):
        code = _pytest(tree, mutation.tests).returncode
    return {0: "SURVIVED", _TESTS_FAILED: "caught"}.get(code, f"NOT RUN (pytest's code {code})")


@contextmanager
def _applied(tree: Path, mutation: Mutation) -> Iterator[None]:
    path = tree / mutation.file
    text = path.read_text()
    path.write_text(mutation.applied_to(text))
    try:
        yield
    finally:
        path.write_text(text)


def _pytest(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests of the copy, up to the first failure."""
    options = ["-x", "-q", f"--timeout={_TIMEOUT_S}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
    # A mutation may leave a file's size and second of change as they were: compiled files would
    # hide it.
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True
    )


def _table(mutations: Sequence[Mutation], verdicts: Sequence[str]) -> Table:
    table = Table("promise", "file", "tests", "verdict")
    for mutation, verdict in zip(mutations, verdicts, strict=True):
        table.add_row(mutation.promise, mutation.file, "\n".join(mutation.tests), verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
