"""How class names are given to a command: ``--classes FILE`` or ``--classes 'a,b,c'``."""

from __future__ import annotations

import os
from pathlib import Path

from vitaclip.class_names import parse_class_names
from vitaclip.data.manifest import read_class_list
from vitaclip.errors import InputError


def class_names(text: str) -> tuple[str, ...]:
    """Names from a file, or separated by commas. Raises InputError."""
    # os.path takes any text, such as a long list of names
    if os.path.isfile(text):  # noqa: PTH113
        return read_class_list(Path(text))
    allowed = "give a file with a name per line, or two names or more: a,b,c"
    if os.path.isdir(text):  # noqa: PTH112
        raise InputError(f"--classes: '{text}' is a folder; {allowed}")
    if (
        "," not in text
        or text.startswith(("/", "./", "../"))
        or text.lower().endswith((".txt", ".csv"))
    ):
        raise InputError(f"--classes: found no file '{text}'; {allowed}")
    return parse_class_names(text, "--classes")
