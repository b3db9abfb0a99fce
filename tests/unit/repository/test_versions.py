"""The combinations of versions that ``make versions`` tests are the ends of what is declared."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from testing.paths import ROOT
from tests.drivers.versions import COMBINATIONS, at_its_floor, declared, main

CONTENT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_lowest_python_is_the_one_that_is_required() -> None:
    lowest = COMBINATIONS["lowest"].python
    assert CONTENT["project"]["requires-python"] == f">={lowest}"
    assert CONTENT["tool"]["mypy"]["python_version"] == lowest
    assert CONTENT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


def test_the_highest_python_is_allowed_and_newer() -> None:
    allowed = SpecifierSet(CONTENT["project"]["requires-python"])
    assert COMBINATIONS["highest"].python in allowed
    assert COMBINATIONS["highest"].python != COMBINATIONS["lowest"].python


def test_the_lowest_combination_pins_all_that_is_declared() -> None:
    pinned = list(COMBINATIONS["lowest"].requirements)
    assert {package.name for package in pinned} == {package.name for package in declared()}
    assert {"torch", "ray", "mlflow", "pytest", "setuptools"} <= {
        requirement.name for requirement in pinned
    }
    for package, floor in zip(declared(), pinned, strict=True):
        (bound,) = floor.specifier
        assert bound.operator == "=="
        assert bound.version in package.specifier


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("ray[tune,train]>=2.55,<2.61", "ray[train,tune]==2.55"),
        ("decord>=0.6; sys_platform == 'linux'", 'decord==0.6; sys_platform == "linux"'),
    ],
)
def test_a_floor_keeps_extras_and_markers(text: str, pinned: str) -> None:
    assert str(at_its_floor(Requirement(text))) == pinned


def test_a_package_without_a_floor_is_refused() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        at_its_floor(Requirement("torch<3"))


def test_an_unknown_combination_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["oldest"])
    assert "no combination is named oldest: use lowest, highest" in capsys.readouterr().err
