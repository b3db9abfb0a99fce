"""Experiment files: strict YAML 1.2, overlays and ``--set``, and errors that say where and what is
allowed.

``no`` is a string, ``1e-4`` a number, a duplicate key an error. Values are validated strictly: the
string ``no`` where a truth value belongs is refused instead of becoming False.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config import StudyConfig
from orchestrator.yaml_text import MAX_CHARACTERS, MAX_DEPTH, load_yaml
from vitaclip.errors import InputError, suggest

Mapping = dict[str, Any]
_MAX_MISTAKES, _MAX_SHOWN = 20, 200


@dataclass(frozen=True)
class Source:
    """One layer of an experiment: a file or a ``--set``, and what it says."""

    name: str
    content: Mapping


def load_study(
    path: Path, overlays: Sequence[Path] = (), settings: Sequence[str] = ()
) -> StudyConfig:
    """Reads an experiment, lays overlays and then ``key=value`` settings over it, and validates the
    whole.

    Raises:
        InputError: names the file, the key, what was found and what is allowed.
    """
    sources = [Source(str(file), read_yaml(file)) for file in (path, *overlays)]
    merged: Mapping = {}
    for source in sources:
        merged = merge(merged, source.content)
    for setting in settings:
        source = Source(f"--set {setting[:80]}", parse_setting(setting, merged))
        merged = merge(merged, source.content)
        sources.append(source)
    return validate(merged, sources)


def read_yaml(path: Path) -> Mapping:
    """One file's mapping. Raises InputError naming the file and the line."""
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:  # bytes
            raise InputError(
                f"{path}: found {path.stat().st_size} bytes, allowed are {MAX_CHARACTERS} "
                "characters"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file{_suggest_file(path)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    content = load_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: found {_kind(content)}, allowed is a mapping of keys such as 'name:'"
        )
    return content


def merge(base: Mapping, overlay: Mapping) -> Mapping:
    """``overlay`` over ``base``: mappings are merged key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_setting(setting: str, merged: Mapping) -> Mapping:
    """``a.b=1`` as ``{"a": {"b": 1}}``; keys of ``merged`` that hold dots themselves are
    recognized.

    Raises:
        InputError: there is no ``=``, or the value is not YAML.
    """
    dotted, equals, text = setting.partition("=")
    if not equals or not dotted:
        raise InputError(
            f"--set {setting[:80]}: found no key=value, allowed is e.g. --set train.epochs=3"
        )
    if dotted.count(".") > MAX_DEPTH:
        raise InputError(
            f"--set {dotted[:80]}...: found {dotted.count('.')} dots, allowed are {MAX_DEPTH}"
        )
    value = load_yaml(text, f"--set {setting[:80]}")
    for key in reversed(_split_key(dotted, merged)):
        value = {key: value}
    return dict(value)


def validate(content: Mapping, sources: Sequence[Source]) -> StudyConfig:
    """The study that ``content`` describes. Raises InputError with one line per mistake."""
    try:
        return StudyConfig.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        lines = [
            _explain(detail, sources) for detail in error.errors(include_url=False)[:_MAX_MISTAKES]
        ]
        more = error.error_count() - len(lines)
        raise InputError(
            "\n".join([*lines, *([f"and {more} more mistakes"] if more else [])])
        ) from None


def _split_key(dotted: str, merged: Any) -> list[str]:
    known = (
        [key for key in merged if dotted == key or dotted.startswith(f"{key}.")] if merged else []
    )
    key = max(known, key=len, default=dotted.partition(".")[0])
    rest = dotted[len(key) + 1 :]
    below = merged.get(key) if isinstance(merged, dict) else None
    return [key, *_split_key(rest, below if isinstance(below, dict) else {})] if rest else [key]


def _suggest_file(path: Path) -> str:
    siblings = [str(other) for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return suggest(str(path), siblings)


def _kind(value: object) -> str:
    return {type(None): "nothing", list: "a list", str: "a text"}.get(type(value), repr(value))


def _explain(detail: ErrorDetails, sources: Sequence[Source]) -> str:
    location = detail["loc"]
    key = _key(location)
    place = f"{_source_of(key, sources)}: {key}" if key else sources[0].name
    if detail["type"] == "extra_forbidden":
        advice = suggest(str(location[-1]), _allowed_keys(location[:-1]))
        return f"{place}: there is no such key{advice}"
    if detail["type"] == "missing":
        return f"{place}: is missing"
    if detail["type"] == "value_error":
        return f"{place}: {detail['msg'].removeprefix('Value error, ')}"
    allowed = re.sub(
        r"^(Input|String|Value|Tuple|List|Dictionary) should (be |have )?", "", detail["msg"]
    )
    return f"{place}: found {_shown(detail['input'])}, allowed: {allowed}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _key(location: Sequence[int | str]) -> str:
    """The dotted key as the file spells it, without the tags pydantic adds for the kinds of
    distributions and benchmarks.
    """
    parts = [str(part) for part in location]
    if len(parts) > 2 and parts[0] in ("search_space", "benchmarks"):
        del parts[2]
    return ".".join(parts)


def _source_of(key: str, sources: Sequence[Source]) -> str:
    for source in reversed(sources):
        if key in _dotted_keys(source.content):
            return source.name
    return sources[0].name


def _dotted_keys(content: Any, prefix: str = "") -> Iterator[str]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield f"{prefix}{key}"
        if isinstance(value, dict | list):
            yield from _dotted_keys(value, f"{prefix}{key}.")


def _allowed_keys(location: Sequence[int | str]) -> list[str]:
    """The field names of the model that stands at ``location`` in a study."""
    models: list[type[BaseModel]] = [StudyConfig]
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
