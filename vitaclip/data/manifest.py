"""Which videos, with which labels: ``Manifest``, and the plain list files that describe one."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitaclip.class_names import check_class_names, clean_class_name
from vitaclip.errors import InputError, suggest

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in "mp4 m4v mov 3gp avi webm mkv mpg mpeg vob ts mts m2ts flv wmv asf ogv".split()  # noqa: SIM905
)

_logger = logging.getLogger(__name__)
_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
# A name with a number before it, or behind it after a comma: as files of labels have them.
_NUMBERED = re.compile(r"([0-9]{1,9})[\s,;:]+\S.*|.*,\s*([0-9]{1,9})$")


@dataclass(frozen=True)
class Clip:
    """One labeled video file. ``label`` is a position in ``Manifest.classes``."""

    path: str
    label: int


@dataclass(frozen=True)
class Manifest:
    """The clips of one split, with absolute paths, and its classes in label order.

    ``classes`` are cleaned names, as a text tower should read them; ``raw_classes`` are the names
    as the dataset's own files spell them. ``missing`` are videos that are annotated, but have no
    file.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    raw_classes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def read_list(path: Path, classes: Sequence[str], *, root: Path | None = None) -> tuple[Clip, ...]:
    """Reads a list file: ``path,label`` or ``path label`` per line, label a number or a class name.

    Relative video paths start at ``root`` (default: the list file's folder). Empty lines are
    skipped. Raises InputError, naming file and line, for a line it cannot read, and for a file
    without any clip.
    """
    labels = _label_numbers(classes, path)
    root = (root or path.parent).absolute()
    clips = tuple(
        Clip(str(root / video), label)
        for number, line in numbered_lines(path)
        for video, label in [_parse_line(line, labels, len(classes), f"{path}, line {number}")]
    )
    if not clips:
        raise InputError(f"{path}: found no clips; write one 'path,label' or 'path label' per line")
    return clips


def _label_numbers(classes: Sequence[str], path: Path) -> dict[str, int]:
    """Maps what a list file may call a class (its number, its clean name) to the label; numbers
    win.
    """
    names = {clean_class_name(name): label for label, name in enumerate(classes)}
    numbers = {str(label): label for label in range(len(classes))}
    unclear = [name for name in names if numbers.get(name, names[name]) != names[name]]
    if unclear:
        _logger.warning(
            "%s: %r is read as a class's number, not as the class of that name", path, unclear[0]
        )
    return names | numbers


def _parse_line(
    line: str, labels: Mapping[str, int], num_classes: int, place: str
) -> tuple[str, int]:
    """Splits at a comma or the last space, whichever leaves a known label (both may stand in
    names).
    """
    splits = list(_possible_splits(line))
    if not splits:
        raise InputError(f"{place}: found {line!r}, allowed 'path,label' or 'path label'")
    for video, label in splits:
        # most labels are numbers, which need no cleaning
        number = labels[label] if label in labels else labels.get(clean_class_name(label))
        if number is not None:
            _check_path(line, video, place)
            return video, number
    found = splits[0][1]
    raise InputError(
        f"{place}: found label {found!r}, allowed 0..{num_classes - 1} or one of {num_classes} "
        f"class names{suggest(clean_class_name(found), labels)}"
    )


def _check_path(line: str, video: str, place: str) -> None:
    """A path that goes on behind a comma or a video's suffix holds another column, unless it is
    quoted.
    """
    if "\0" in video:
        raise InputError(f"{place}: found a zero byte in {line!r}, which no path holds")
    if line.startswith('"') or video.lower().endswith(tuple(VIDEO_SUFFIXES)):
        return
    if re.search(rf",|\.({_SUFFIXES})\s", video, re.IGNORECASE):
        raise InputError(
            f"{place}: found three columns in {line!r}, allowed 'path,label' or 'path label'; a "
            "path that holds commas or blanks stands in double quotes"
        )


def _possible_splits(line: str) -> Iterator[tuple[str, str]]:
    try:
        cells = next(csv.reader([line]))
    except csv.Error:
        # a cell is too long for the reader
        cells = []
    if len(cells) == 2:
        yield cells[0].strip(), cells[1].strip()
    for parts in (line.rsplit(",", 1), line.split(",", 1), line.rsplit(None, 1)):
        if len(parts) == 2 and all(part.strip() for part in parts):
            yield parts[0].strip(), parts[1].strip()


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, stripped line) of a text file's non-empty lines. Raises
    InputError.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def read_text(path: Path) -> str:
    """The text of an annotation file, whose lines end with ``\\n``. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); a UTF-8 text file is expected there"
        ) from error


def read_class_list(path: Path) -> tuple[str, ...]:
    """Reads class names in label order.

    A text file has one per line; lines that start with ``#`` are comments, and a name may stand in
    double quotes. A ``.csv`` file has a header with the columns ``id`` and ``name``, among others,
    as X-CLIP and ViFi-CLIP write it; its lines may stand in any order.

    Raises:
        InputError: the file is missing or empty, a name stands there twice, or the ids are not 0,
            1, 2, ...
    """
    names = _csv_names(path) if path.suffix.lower() == ".csv" else _text_names(path)
    check_class_names(str(path), names)
    return tuple(names.values())


def class_list_text(names: Iterable[str]) -> str:
    """The content of a text file that ``read_class_list`` reads as these names."""
    return "".join(f"{_quoted(name)}\n" for name in names)


def _quoted(name: str) -> str:
    is_plain = (
        name == name.strip()
        and not name.startswith(("#", '"', "\ufeff"))
        and not _NUMBERED.match(name)
    )
    return name if is_plain else '"{}"'.format(name.replace('"', '""'))


def _text_names(path: Path) -> dict[str, str]:
    """Names by their lines."""
    lines = {
        f"line {number}": line for number, line in numbered_lines(path) if not line.startswith("#")
    }
    ids = [int(found[1] or found[2]) for line in lines.values() if (found := _NUMBERED.match(line))]
    if len(ids) > 1 and sorted(ids) in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        raise InputError(
            f"{path}: every line holds a number besides the name; leave the numbers out, or make "
            "it a .csv file with the header id,name and ids from 0"
        )
    return {place: _unquoted(line) for place, line in lines.items()}


def _unquoted(line: str) -> str:
    is_quoted = re.fullmatch(r'"([^"]|"")*"', line)
    return line[1:-1].replace('""', '"') if is_quoted else line


def _csv_names(path: Path) -> dict[str, str]:
    """Names by their lines, in the order of their ids."""
    rows = _csv_rows(path)
    place, header = next(rows, ("line 1", []))
    columns = [cell.lower() for cell in header]
    if columns.count("id") != 1 or columns.count("name") != 1:
        raise InputError(
            f"{path}, {place}: found {','.join(header)!r}, needed is a header such as 'id,name'"
        )
    named: dict[int, tuple[str, str]] = {}
    for place, cells in rows:
        if len(cells) != len(header):
            raise InputError(
                f"{path}, {place}: found {len(cells)} cells under {len(header)} columns; a name "
                "that holds a comma stands in double quotes"
            )
        label = cells[columns.index("id")]
        if not re.fullmatch(r"[0-9]{1,9}", label) or int(label) in named:
            raise InputError(
                f"{path}, {place}: found id {label!r}, needed are 0, 1, 2, ..., each once"
            )
        named[int(label)] = place, cells[columns.index("name")]
    if sorted(named) != list(range(len(named))):
        raise InputError(
            f"{path}: found {len(named)} ids from {min(named)} to {max(named)}, needed is each of "
            f"0..{len(named) - 1}: they are the labels"
        )
    return dict(named[label] for label in sorted(named))


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The place and the cells of each row that is not empty."""
    reader = csv.reader(io.StringIO(read_text(path)), skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise InputError(
            f'{path}, line {reader.line_num}: is no CSV ({error}); quote cells with "'
        ) from error
