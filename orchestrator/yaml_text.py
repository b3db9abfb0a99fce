"""YAML 1.2 text into plain values, with limits that are checked before anything is built from it.

A few hundred bytes of YAML can ask for gigabytes: aliases of aliases, thousands of levels, numbers
of thousands of digits. So the text's events, which take no more memory than the text, are looked at
first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from vitaclip.errors import InputError

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 40
MAX_VALUES = 50_000  # aliases count as often as they stand for something
MAX_DIGITS = 100
_NUMBER = re.compile(r"[-+.0-9_xXoOa-fA-F]+")


def load_yaml(text: str, place: str) -> Any:
    """The value that ``text`` describes.

    Args:
        text: one YAML document.
        place: where it stands, for error messages.

    Raises:
        InputError: it is no YAML, or passes one of this module's limits; names the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{place}: found {len(text)} characters, allowed are {MAX_CHARACTERS}")
    try:
        _Limits(place).check(text)
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"{place}{_problem(error)}") from None
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise InputError(f"{place}: is not YAML of plain values: {error}") from None
    _check_plain(value, place)
    return value


def _check_plain(value: object, place: str) -> None:
    """Keys are texts, and values what JSON has too: dates, sets and bytes have no use here."""
    if isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise InputError(
                    f"{place}: found the key {str(key)[:80]!r}, allowed are texts: put it in quotes"
                )
            _check_plain(below, place)
    elif isinstance(value, list):
        for below in value:
            _check_plain(below, place)
    elif not isinstance(value, str | int | float | None):
        raise InputError(
            f"{place}: found {str(value)[:80]!r}, a {type(value).__name__}; put it in quotes for a "
            "text"
        )


@dataclass
class _Open:
    """A collection whose end has not come."""

    anchor: str | None
    is_mapping: bool
    size: int = 1
    num_children: int = 0


class _Limits:
    """Counts what a document will hold, event by event."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._open: list[_Open] = []
        self._sizes: dict[str, int] = {}  # of what an anchor stands for

    def check(self, text: str) -> None:
        for event in YAML(typ="safe", pure=True).parse(text):
            self._look(event)

    def _look(self, event: Event) -> None:
        if isinstance(event, CollectionStartEvent):
            self._check_key(event)
            self._open.append(_Open(event.anchor, isinstance(event, MappingStartEvent)))
            if len(self._open) > MAX_DEPTH:
                self._refuse(event, f"found more than {MAX_DEPTH} levels")
        elif isinstance(event, CollectionEndEvent):
            ended = self._open.pop()
            if ended.anchor:
                self._sizes[ended.anchor] = ended.size
            self._add(event, ended.size)
        elif isinstance(event, AliasEvent):
            if any(collection.anchor == event.anchor for collection in self._open):
                self._refuse(event, f"*{event.anchor} stands inside of what it stands for")
            self._add(event, self._sizes.get(event.anchor, 1))
        elif isinstance(event, ScalarEvent):
            if len(event.value) > MAX_DIGITS and not event.style and _NUMBER.fullmatch(event.value):
                self._refuse(
                    event, f"found a number of {len(event.value)} digits, allowed are {MAX_DIGITS}"
                )
            if event.anchor:
                self._sizes[event.anchor] = 1
            self._add(event, 1)

    def _check_key(self, event: Event) -> None:
        parent = self._open[-1] if self._open else None
        if parent and parent.is_mapping and parent.num_children % 2 == 0:
            self._refuse(event, "found a list or a mapping as a key, allowed are texts")

    def _add(self, event: Event, size: int) -> None:
        if self._open:
            self._open[-1].size += size
            self._open[-1].num_children += 1
            if self._open[-1].size > MAX_VALUES:
                self._refuse(
                    event, f"found more than {MAX_VALUES} values, those of aliases counted"
                )

    def _refuse(self, event: Event, problem: str) -> None:
        raise InputError(f"{self._place}, line {event.start_mark.line + 1}: {problem}")


def _problem(error: YAMLError) -> str:
    if not isinstance(error, MarkedYAMLError):
        return f": is not YAML: {error}"
    mark = error.problem_mark or error.context_mark
    line = f", line {mark.line + 1}" if mark else ""
    return f"{line}: {error.problem or error.context}"
