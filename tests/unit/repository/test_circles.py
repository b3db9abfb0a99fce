"""No two files import each other, not even through others: what lies beneath can be read alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from testing.paths import ROOT


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for package in ("vitaclip", "orchestrator")
    for path in (ROOT / package).rglob("*.py")
}


def imported(path: Path) -> Iterator[str]:
    """The product's modules that a file imports anywhere, inside functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if found := next((name for name in (inner, node.module) if name in MODULES), None):
                    yield found


def test_imports_go_in_no_circle() -> None:
    graph = {name: list(imported(path)) for name, path in MODULES.items()}
    assert "vitaclip.methods.video_model" in graph["vitaclip.methods.vita_clip"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
