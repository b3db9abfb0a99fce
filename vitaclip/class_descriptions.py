"""Sentences that describe classes, from a file: what a text tower reads in place of their names, as
FROSTER (Huang et al., ICLR 2024) and OST (Chen et al., CVPR 2024) do.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitaclip.class_names import MAX_CLASSES, clean_class_name
from vitaclip.errors import InputError, suggest

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_SENTENCES: Final = 1000  # of one class
MAX_LENGTH: Final = 1000  # characters of a sentence; CLIP's text tower reads about 300
_NUM_NAMED = 5  # missing classes that a message names
_COLUMNS = ("name", "description")


@dataclass(frozen=True)
class ClassDescriptions:
    """One or several sentences for each class."""

    path: Path
    sha256: str  # of the file
    sentences: Mapping[str, tuple[str, ...]]  # by clean class name, or by label

    def of(self, classes: Sequence[str], place: str) -> list[tuple[str, ...]]:
        """The sentences of each class. Labels count as names where the file numbers exactly these
        classes from 0, as the published files do.

        Args:
            classes: their names, in label order.
            place: whose classes they are, for messages.

        Raises:
            InputError: a class is not described.
        """
        keys = [clean_class_name(name) for name in classes]
        missing = [key for key in keys if key not in self.sentences]
        labels = [str(label) for label in range(len(classes))]
        if missing and self.sentences.keys() == set(labels):
            return [self.sentences[label] for label in labels]
        if missing:
            raise InputError(self._what_is_missing(missing, len(classes), place))
        return [self.sentences[key] for key in keys]

    def _what_is_missing(self, missing: Sequence[str], num_classes: int, place: str) -> str:
        if all(key.isdecimal() for key in self.sentences):
            return (
                f"{self.path}: numbers {len(self.sentences)} classes, but {place} has "
                f"{num_classes}; number exactly these from 0, or write their names"
            )
        named = ", ".join(map(repr, missing[:_NUM_NAMED]))
        more = f" and {len(missing) - _NUM_NAMED} more" if len(missing) > _NUM_NAMED else ""
        return (
            f"{self.path}: describes {len(self.sentences)} classes, but not {named}{more} of "
            f"{place}{suggest(missing[0], self.sentences)}; write one sentence or several for each"
        )


def read_descriptions(path: Path) -> ClassDescriptions:
    """Reads a ``.json`` file, ``{class name: sentence or list of sentences}``, or a ``.csv`` file
    with the columns ``name`` and ``description``, a sentence a row.

    Raises:
        InputError: names the file, the class and what is allowed.
    """
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text ({error})") from error
    readers = {".json": _json_rows, ".csv": _csv_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: is neither .json nor .csv, as descriptions must be")
    sentences: dict[str, tuple[str, ...]] = {}
    for place, name, found in readers[path.suffix.lower()](text, path):
        clean = _checked_name(name, place)
        sentences[clean] = (*sentences.get(clean, ()), *(_sentence(s, place) for s in found))
        if len(sentences[clean]) > MAX_SENTENCES or len(sentences) > MAX_CLASSES:
            raise InputError(
                f"{place}: is one too many, allowed are {MAX_CLASSES} classes with "
                f"{MAX_SENTENCES} sentences each"
            )
    if not sentences:
        raise InputError(f"{path}: describes no class")
    return ClassDescriptions(path, hashlib.sha256(content).hexdigest(), sentences)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of descriptions")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: has more than {MAX_BYTES >> 20} MB, which is allowed")
    return content


class _Object(list[tuple[str, object]]):
    """A JSON object's keys and values; a key may stand twice."""


_Rows = Iterable[tuple[str, str, Sequence[object]]]  # place, class name, sentences


def _json_rows(text: str, path: Path) -> _Rows:
    try:
        content = json.loads(text, object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error})") from error
    if not isinstance(content, _Object):
        raise InputError(f'{path}: is no JSON object such as {{"wave": "A person waves."}}')
    seen: dict[str, str] = {}
    for name, value in content:
        place = f"{path}, class {name[:80]!r}"
        if other := seen.get(clean_class_name(name)):
            raise InputError(f"{place}: stands already there as {other!r}; join the two")
        seen[clean_class_name(name)] = name
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or isinstance(found, _Object) or not found:
            raise InputError(f"{place}: found {str(value)[:80]}, allowed: a sentence, or a list")
        yield place, name, found


def _csv_rows(text: str, path: Path) -> _Rows:
    rows = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True)
    try:
        if not set(_COLUMNS) <= {*(rows.fieldnames or ())}:
            raise InputError(f"{path}, line 1: needed is a header with {' and '.join(_COLUMNS)}")
        for row in rows:
            name, description = (row[column] or "" for column in _COLUMNS)
            yield f"{path}, line {rows.line_num}", name, [description]
    except csv.Error as error:
        raise InputError(
            f'{path}, line {rows.line_num}: is no CSV ({error}); quote cells with "'
        ) from error


def _checked_name(name: str, place: str) -> str:
    clean = clean_class_name(name)
    if not clean or len(name) > MAX_LENGTH:
        raise InputError(f"{place}: names no class; write its name, such as 'wave'")
    return clean


def _sentence(text: object, place: str) -> str:
    sentence = " ".join(text.split()) if isinstance(text, str) else ""
    if not sentence or len(sentence) > MAX_LENGTH:
        raise InputError(
            f"{place}: found {str(text)[:80]!r}, allowed is a sentence of 1 to {MAX_LENGTH} "
            "characters"
        )
    return sentence
