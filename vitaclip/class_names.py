"""Class names: how a text tower reads them, which are the same, and how a user gives them in one
line.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from vitaclip.errors import InputError

MAX_CLASSES: Final = 10_000
MAX_NAME_LENGTH: Final = 500  # characters; CLIP's text tower reads about 300


def clean_class_name(raw: str) -> str:
    """A class name as a text tower should read it; names that clean up alike are one class.

    ``ApplyEyeMakeup`` -> ``apply eye makeup``, ``brush_hair`` -> ``brush hair``, ``Folding
    [something]`` -> ``folding something``.
    """
    name = re.sub(r"[\[\]]", "", unicodedata.normalize("NFC", raw)).replace("_", " ").strip()
    if " " not in name:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(name.lower().split())


def check_class_names(source: str, names: Mapping[str, str]) -> None:
    """Every name must say something, and something else than those before it.

    Args:
        source: of the names, such as a file, for the message.
        names: by their place in the source, such as ``line 3``.

    Raises:
        InputError: there are none or too many, or a name is empty, too long, on several lines or
            like another one.
    """
    if not names:
        raise InputError(f"{source}: found no class names; write at least one")
    if len(names) > MAX_CLASSES:
        raise InputError(f"{source}: found {len(names)} class names, allowed are {MAX_CLASSES}")
    places: dict[str, str] = {}
    for place, name in names.items():
        clean = clean_class_name(name)
        if not clean:
            raise InputError(
                f"{source}, {place}: class name {name!r} holds no word; write one, such as 'wave'"
            )
        if len(name) > MAX_NAME_LENGTH:
            raise InputError(
                f"{source}, {place}: class name {name[:40]!r}... has {len(name)} characters, "
                f"allowed are {MAX_NAME_LENGTH}"
            )
        if "\n" in name:
            raise InputError(
                f"{source}, {place}: class name {name!r} stands on several lines; write it on one"
            )
        if clean in places:
            other = names[places[clean]]
            spelling = "" if other == name else f" as {other!r}"
            raise InputError(
                f"{source}, {place}: class {name!r} stands already in {places[clean]}{spelling}; "
                "keep one of them"
            )
        places[clean] = place


def parse_class_names(text: str, source: str) -> tuple[str, ...]:
    """Names separated by commas; one that holds a comma stands in double quotes.

    Args:
        text: such as ``wave, "carve, slowly"``.
        source: of the text, for the message.

    Raises:
        InputError: there is none, a name is empty, or two are the same.
    """
    try:
        [cells] = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{source}: found {text[:80]!r}, allowed are names with commas between: a,b,c"
        ) from error
    names = tuple(cell.strip() for cell in cells)
    check_class_names(
        source, {f"name {number}": name for number, name in enumerate(names, start=1)}
    )
    return names
