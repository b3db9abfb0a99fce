"""Every test with the lowest and with the highest versions that ``pyproject.toml`` allows.

``make versions``, or ``python -m tests.drivers.versions [NAME ...] [--tests PATH ...]`` for some
combinations and some tests. ``make test`` takes the versions of ``requirements.lock``.

Each combination gets an environment of its own, from wheels only. It stays in ``build/versions/``,
for a look at what failed. *Lowest* has every declared package at its floor, all at once; what these
ask for is as new as they allow. *Highest* has the newest version of everything. Ends with code 1 if
a test failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement

from testing.paths import ROOT

PROJECT = ROOT / "pyproject.toml"
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Combination:
    """A Python, and the versions that its packages have."""

    python: str
    lowest: bool

    @property
    def requirements(self) -> Iterator[Requirement]:
        return map(at_its_floor, declared()) if self.lowest else iter(declared())


COMBINATIONS = {
    "lowest": Combination("3.11", lowest=True),
    "highest": Combination("3.13", lowest=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drivers.versions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMBINATIONS)}")
    parser.add_argument("--tests", nargs="+", metavar="PATH", default=[], help="default: all")
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.names) - COMBINATIONS.keys():
        parser.error(f"no combination is named {', '.join(unknown)}: use {', '.join(COMBINATIONS)}")
    failed = [name for name in parsed.names or COMBINATIONS if not passes(name, parsed.tests)]
    print(f"failed with the versions: {', '.join(failed)}" if failed else "passed")
    return bool(failed)


def passes(name: str, tests: Sequence[str]) -> bool:
    """Makes the environment of a combination, tells what it holds, and runs tests in it."""
    combination = COMBINATIONS[name]
    print(f"{name} versions, Python {combination.python}", flush=True)
    environment = ROOT / "build/versions" / name
    install(combination, environment)
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command: list[str | Path] = [environment / "bin/python", "-m", "pytest", *tests]
    return not subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}).returncode


def install(combination: Combination, environment: Path) -> None:
    """Raises CalledProcessError if a version is not to be had, or if they do not fit together."""
    python = environment / "bin/python"
    requirements = environment / "requirements.txt"
    made = ("--clear", "--seed", "--no-python-downloads", "--python", combination.python)
    uv("venv", *made, environment)
    requirements.write_text("\n".join(map(str, combination.requirements)))
    uv("pip", "install", "--python", python, "--only-binary", ":all:", "-r", requirements)
    uv("pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "-e", ROOT)
    uv("pip", "list", "--python", python)


def uv(*arguments: str | Path) -> None:
    subprocess.run([UV, *arguments], cwd=ROOT, check=True)


def declared() -> list[Requirement]:
    """All that the project asks for, with every extra, and what builds it."""
    content = tomllib.loads(PROJECT.read_text())
    project = content["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    texts = (*content["build-system"]["requires"], *project["dependencies"], *extras)
    requirements = map(Requirement, texts)
    return [package for package in requirements if package.name != project["name"]]


def at_its_floor(requirement: Requirement) -> Requirement:
    """The requirement with its lowest version. Raises ValueError if it names none."""
    (floor,) = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return Requirement(f"{requirement.name}{extras}=={floor}{marker}")


if __name__ == "__main__":
    sys.exit(main())
