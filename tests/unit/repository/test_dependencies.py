"""What is imported is declared, where it is needed: the library with its dependencies alone, the
rest with its extra.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testing.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"vitaclip", "orchestrator", "testing", "tests", "benchmarks", "infra", PROJECT["name"]}
PRODUCT = ("vitaclip", "orchestrator")
# Packages that others import, each when it is needed.
IMPORTED_BY_OTHERS = {"cmaes"}
# A benchmark's part that another Python runs, one that has what this file imports.
RUN_ELSEWHERE = {ROOT / "benchmarks/search/syne_tune_process.py"}
DISTRIBUTIONS = packages_distributions()


def declared(*extras: str) -> set[str]:
    """Distributions that the project asks for, and those of some extras."""
    texts = [*PROJECT["dependencies"]]
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return {str(canonicalize_name(Requirement(text).name)) for text in texts} - OWN


def imported(path: Path, *, at_once: bool = False) -> set[str]:
    """Distributions that a file imports, or only those that importing the file imports."""
    nodes = _run_at_once(ast.parse(path.read_text())) if at_once else ast.walk(_parsed(path))
    roots = {name.partition(".")[0] for node in nodes for name in _names(node)}
    return {_distribution(root) for root in roots - sys.stdlib_module_names - OWN}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes outside of functions and of what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_at_once(child)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def _distribution(module: str) -> str:
    """The one that the module is named after, of several that share a folder."""
    found = [canonicalize_name(name) for name in DISTRIBUTIONS[module]]
    return canonicalize_name(module) if canonicalize_name(module) in found else found[0]


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_all_that_the_product_imports_is_declared() -> None:
    allowed = declared("orchestrator", "report", "s3", "mlflow", "wandb")
    for path in files(*PRODUCT):
        assert imported(path) <= allowed, path


def test_all_that_developers_import_is_declared() -> None:
    allowed = declared(*PROJECT["optional-dependencies"])
    for path in set(files("testing", "tests", "benchmarks", "infra")) - RUN_ELSEWHERE:
        assert imported(path) <= allowed, path


def test_the_library_needs_no_extra() -> None:
    for path in files("vitaclip"):
        assert imported(path, at_once=True) <= declared(), path


def test_an_extra_is_needed_only_where_its_packages_are() -> None:
    of_stores = declared("orchestrator", "s3")
    of_tracking = declared("orchestrator", "mlflow", "wandb")
    of_reports = declared("orchestrator", "report")
    for path in files("orchestrator"):
        folder = path.relative_to(ROOT / "orchestrator").parts[0]
        allowed = {
            "storage": of_stores,
            "tracking": of_tracking,
            "reporting": of_reports,
            "live": of_reports,
            "commands": of_reports,
        }.get(folder, declared("orchestrator"))
        assert imported(path, at_once=True) <= allowed, path


def test_all_that_is_declared_is_imported() -> None:
    used = {package for path in files(*PRODUCT) for package in imported(path)}
    wanted = declared("orchestrator", "report", "s3", "mlflow", "wandb")
    assert wanted - used == IMPORTED_BY_OTHERS


def test_developers_have_every_extra() -> None:
    [own] = [
        Requirement(text)
        for text in PROJECT["optional-dependencies"]["dev"]
        if text.startswith(PROJECT["name"])
    ]
    assert own.extras == PROJECT["optional-dependencies"].keys() - {"dev"}
