"""A public function with four parameters or more says what each of them is."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from testing.paths import ROOT

MANY = 4


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions, methods and constructors of the product, each with its place."""
    for path in sorted((*ROOT.glob("vitaclip/**/*.py"), *ROOT.glob("orchestrator/**/*.py"))):
        for node in ast.parse(path.read_text()).body:
            inside: list[ast.stmt] = [node]
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                inside = node.body
            for inner in inside:
                if isinstance(inner, ast.FunctionDef) and (
                    inner.name == "__init__" or not inner.name.startswith("_")
                ):
                    yield f"{path.relative_to(ROOT)}:{inner.lineno} {inner.name}", inner


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument for argument in named if argument.arg not in ("self", "cls")]


def is_command(function: ast.FunctionDef) -> bool:
    """Whether its parameters are a command's options: each has its help beside it."""
    annotations = (argument.annotation for argument in parameters(function))
    return any(kind and ast.unparse(kind).startswith("Annotated[") for kind in annotations)


def says_all(function: ast.FunctionDef) -> bool:
    explained = (ast.get_docstring(function) or "").partition("\nArgs:\n")[2]
    return all(f"    {argument.arg}: " in explained for argument in parameters(function))


def test_every_function_with_many_parameters_says_what_they_are() -> None:
    many = {
        place: function
        for place, function in functions()
        if len(parameters(function)) >= MANY and not is_command(function)
    }
    told = {function.name for function in many.values() if says_all(function)} - {"__init__"}
    silent = [
        place
        for place, function in many.items()
        # a method that keeps a protocol's promise is explained there
        if not (says_all(function) or (function.name in told and not ast.get_docstring(function)))
    ]
    assert len(told) > 30
    assert not silent, "\n".join(silent)
