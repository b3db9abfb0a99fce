"""Which videos, with which labels: ``Manifest``, and the plain list files that describe one."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitaclip.errors import InputError, suggest


@dataclass(frozen=True)
class Clip:
    """One labelled video file. ``label`` is a position in ``Manifest.classes``."""

    path: str
    label: int


@dataclass(frozen=True)
class Manifest:
    """The clips of one split, with absolute paths, and its classes in label order.

    ``classes`` are cleaned names, as a text tower should read them; ``raw_classes`` are the names as the
    dataset's own files spell them. ``missing`` are videos that are annotated, but have no file.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    raw_classes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def read_list(path: Path, classes: Sequence[str], *, root: Path | None = None) -> tuple[Clip, ...]:
    """Reads a list file: ``path,label`` or ``path label`` per line, label a number or a class name.

    Relative video paths start at ``root`` (default: the list file's folder). Empty lines are skipped.
    Raises InputError, naming file and line, for a line it cannot read, and for a file without any clip.
    """
    labels = label_numbers(classes)
    root = (root or path.parent).absolute()
    clips = tuple(
        Clip(str(root / video), label)
        for number, line in numbered_lines(path)
        for video, label in [_parse_line(line, labels, len(classes), f"{path}, line {number}")]
    )
    if not clips:
        raise InputError(f"{path}: found no clips; write one 'path,label' or 'path label' per line")
    return clips


def label_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Maps every spelling of a label in a list file (its number, its class name) to the label."""
    numbers = {str(label): label for label in range(len(classes))}
    return {**{name: label for label, name in enumerate(classes)}, **numbers}


def _parse_line(line: str, labels: Mapping[str, int], num_classes: int, place: str) -> tuple[str, int]:
    """Splits at a comma or the last space, whichever leaves a known label (both may stand in names)."""
    splits = list(_possible_splits(line))
    if not splits:
        raise InputError(f"{place}: found {line!r}, allowed 'path,label' or 'path label'")
    for video, label in splits:
        if label in labels:
            return video, labels[label]
    found = splits[0][1]
    raise InputError(
        f"{place}: found label {found!r}, allowed 0..{num_classes - 1} or one of {num_classes} class names"
        f"{suggest(found, labels)}"
    )


def _possible_splits(line: str) -> Iterator[tuple[str, str]]:
    cells = next(csv.reader([line]))
    if len(cells) == 2:
        yield cells[0].strip(), cells[1].strip()
    for parts in (line.rsplit(",", 1), line.split(",", 1), line.rsplit(None, 1)):
        if len(parts) == 2 and all(part.strip() for part in parts):
            yield parts[0].strip(), parts[1].strip()


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, stripped line) of a text file's non-empty lines. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); a UTF-8 text file is expected there") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def read_class_list(path: Path) -> tuple[str, ...]:
    """Reads class names in label order, one per line; lines that start with ``#`` are comments.

    A ``.csv`` file has a header and the columns id and name, as X-CLIP and ViFi-CLIP write it. Raises
    InputError for a missing or empty file and for a name that stands there twice.
    """
    names: dict[str, int] = {}
    for number, line in numbered_lines(path):
        if line.startswith("#") or (path.suffix == ".csv" and number == 1):
            continue
        name = next(csv.reader([line]))[-1] if path.suffix == ".csv" else line
        if name in names:
            raise InputError(f"{path}, line {number}: class {name!r} stands already in line {names[name]}")
        names[name] = number
    if not names:
        raise InputError(f"{path}: found no class names; write one per line, in label order")
    return tuple(names)
