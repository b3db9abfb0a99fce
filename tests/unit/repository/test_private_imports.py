"""What is not Ray's public interface is used in one file, whose tested versions are declared."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.paths import ROOT

ALLOWED = ROOT / "orchestrator" / "execution" / "ray_internals.py"
PRIVATE = re.compile(
    r"^ray(\.\w+)*\._|^ray\.(core|tune\.execution)\b|^ray\.autoscaler\.v2|^ray\.train\.v2"
)


def private_names(path: Path) -> Iterator[str]:
    """Private parts of Ray that a file imports or reaches by dots."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        yield from filter(PRIVATE.match, names)


@pytest.mark.parametrize("package", ["orchestrator", "vitaclip"])
def test_private_parts_of_ray_are_used_in_one_file(package: str) -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != ALLOWED and (names := list(private_names(path)))
    }
    assert not found


def test_the_file_that_may_is_found_to_do_so_and_has_an_upper_bound() -> None:
    assert "ray._private.ray_constants" in private_names(ALLOWED)
    [ray] = re.findall(r'"ray\[.*?\]([^"]*)"', (ROOT / "pyproject.toml").read_text())
    assert ",<" in ray
