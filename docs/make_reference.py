"""Writes what the code tells by itself: docs/reference/ on study files and commands,
and the schema of study files.

Run ``python docs/make_reference.py`` after a change of a config's field or a command's option; a
test compares.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.commands.schema import study_schema
from orchestrator.config import StudyConfig

ROOT = Path(__file__).parents[1]
WIDTH = 98  # of a command's help
STUDY_HEAD = """\
# The study file

Every field that an experiment file may hold. A key that is not here, or a value that is not
allowed, is refused before anything starts. `docs/make_reference.py` writes this page from
`orchestrator/config.py`, `orchestrator/evaluation/protocols/` and `vitaclip/config/`.
"""
COMMANDS_HEAD = """\
# Commands

`vitaclip COMMAND --help` shows what stands here. `vitaclip --install-completion` teaches the shell
to complete commands and options.

Those of the orchestrator are modules, too: `python -m orchestrator.sweep FILE.yaml` is
`vitaclip sweep FILE.yaml`. So are those of the library: `python -m vitaclip predict`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | something failed |
| 2 | input that cannot be used: the message says where, what was found and what is allowed |
| 130 | interrupted; the same command goes on |

`docs/make_reference.py` writes this page.
"""
_NAMES = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}
_SCALARS = {"boolean", "integer", "number", "string"}

Schema = dict[str, Any]


def study_page() -> str:
    """The page as text."""
    schema = StudyConfig.model_json_schema()
    places: dict[str, list[str]] = {}
    for name, path in _places(schema, schema["$defs"], ""):
        places.setdefault(name, []).append(path)
    titles = {name: _title(schema["$defs"][name], places[name]) for name in places}
    tables = _Tables(schema["$defs"], titles)
    sections = [tables.section(schema, "The file")]
    sections += [
        tables.section(schema["$defs"][name], title) for name, title in tables.titles.items()
    ]
    return "\n".join([STUDY_HEAD, *sections])


def commands_page() -> str:
    """The page as text: every command's help."""
    runner = CliRunner()
    sections = []
    for words in _commands(get_command(app)):
        shown = runner.invoke(app, [*words, "--help"], prog_name="vitaclip", terminal_width=WIDTH)
        sections += [f"## `vitaclip {' '.join(words)}`", "", "```text", shown.output.strip()]
        sections += ["```", ""]
    return "\n".join([COMMANDS_HEAD, *sections])


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words after ``vitaclip`` of every command, those of groups too."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield words
    for name, child in inner.items():
        yield from _commands(child, (*words, name))


def _places(model: Schema, models: dict[str, Schema], path: str) -> Iterator[tuple[str, str]]:
    """The models within a model, each with the path under which it stands."""
    for key, field in model["properties"].items():
        inner = f"{path}.{key}".lstrip(".")
        for name in dict.fromkeys(_references(field)):
            if "properties" in models[name]:
                yield name, inner
                yield from _places(models[name], models, inner)


def _references(value: Any) -> Iterator[str]:
    """The models that a field's schema names, in order."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield _name(value)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _name(reference: Schema) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _title(model: Schema, paths: Sequence[str]) -> str:
    """The places of a model, which is one of several kinds if a constant field tells them apart."""
    places = " and ".join(f"`{path}`" for path in dict.fromkeys(paths))
    kinds = (
        (key, field["const"]) for key, field in model["properties"].items() if "const" in field
    )
    return places + "".join(f" of {key} `{kind}`" for key, kind in kinds)


@dataclass(frozen=True)
class _Tables:
    """Writes a table for each model."""

    models: dict[str, Schema]  # by name
    titles: dict[str, str]  # of the sections, by the names of their models

    def section(self, model: Schema, title: str) -> str:
        required = model.get("required", ())
        rows = [
            f"| `{key}` | {_cell(self._kind(field))} | {self._default(field, key in required)} "
            f"| {_cell(self._meaning(field))} |"
            for key, field in model["properties"].items()
        ]
        table = ["| field | value | default | meaning |", "| --- | --- | --- | --- |", *rows]
        return "\n".join([f"## {title}", "", _sentence(model), "", *table, ""])

    def _meaning(self, field: Schema) -> str:
        """A field's own description, or else that of the model which it holds."""
        inner = self.models[_name(field)] if "$ref" in field else {}
        return str(field.get("description") or inner.get("description", ""))

    def _kind(self, field: Schema) -> str:
        """What a field takes, in words."""
        if options := field.get("anyOf") or field.get("oneOf"):
            return self._either(options)
        if "$ref" in field:
            return self._link(_name(field))
        if "const" in field or "enum" in field:
            return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
        if "prefixItems" in field:
            return f"[{', '.join(map(self._kind, field['prefixItems']))}]"
        if field.get("type") == "array":
            return f"a list: {self._kind(field['items'])}"
        if field.get("type") == "object":
            return f"keys with: {self._kind(field['additionalProperties'])}"
        return _plain_kind(field)

    def _either(self, options: Sequence[Schema]) -> str:
        """Any value of YAML's is called so; the same words stand once."""
        is_any = {option.get("type") for option in options} >= _SCALARS
        words = ["any value"] if is_any else [self._kind(option) for option in options]
        return " or ".join(dict.fromkeys(words))

    def _link(self, name: str) -> str:
        title = self.titles[name]
        anchor = re.sub(r"[^\w\s-]", "", title).replace(" ", "-")
        return f"[{title}](#{anchor})"

    def _default(self, field: Schema, is_required: bool) -> str:
        if is_required:
            return "required"
        value = field.get("default")
        if isinstance(value, dict) and value:
            return "its defaults"
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _plain_kind(field: Schema) -> str:
    name = _NAMES.get(field.get("type", ""), field.get("type", "any value"))
    low, high = field.get("minimum"), field.get("maximum")
    if "exclusiveMinimum" in field:
        above = f"above {_number(field['exclusiveMinimum'])}"
        return f"{name} {above}" + ("" if high is None else f", at most {_number(high)}")
    if low is not None:
        return f"{name}, {_number(low)} " + ("or more" if high is None else f"to {_number(high)}")
    return f"{name} like `{field['pattern']}`" if "pattern" in field else str(name)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _sentence(model: Schema) -> str:
    return textwrap.fill(model.get("description", "").replace("``", "`"), 100)


def _cell(text: str) -> str:
    """Text in a table: a bar would end the cell, and a bracket would begin a tag."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


PAGES = {
    "docs/reference/study_file.md": study_page,
    "docs/reference/commands.md": commands_page,
    "experiments/study.schema.json": study_schema,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).write_text(page())
