"""The data sets' own annotation files, as they are published, turned into rows of (video file,
class name).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitaclip.class_names import clean_class_name
from vitaclip.data.manifest import VIDEO_SUFFIXES, numbered_lines, read_text
from vitaclip.errors import InputError

OFFICIAL_SPLITS = 3  # of UCF101 and HMDB51
ALL = "all"
CLASS_LISTS = Path(__file__).parent / "classes"  # <data set>.txt


@dataclass(frozen=True)
class Row:
    """One annotated video: where the annotation stands, the video's name or ``class/name``, its raw
    class.
    """

    place: str
    video: str
    raw_class: str


@dataclass(frozen=True)
class Annotations:
    """What files say of one split: its videos, and its classes in label order."""

    rows: Sequence[Row]
    classes: tuple[str, ...] | None = None  # None: all of the data set's
    classes_place: str = ""  # where these are listed, for messages


class UnlabeledError(InputError):
    """A split that was published without labels, such as the test videos of a challenge."""


def read_kinetics(root: Path, split: str) -> list[Row] | None:
    """``train.csv``, ``val.csv`` (or ``validate.csv``), ``test.csv``, in the folder or in
    ``annotations/``.

    Columns: label, youtube_id, time_start, time_end, split. Returns None where no such file is.
    Raises UnlabeledError where the labels are left out.
    """
    names = ("val.csv", "validate.csv") if split == "val" else (f"{split}.csv",)
    path = _find(root, *names, *(f"annotations/{name}" for name in names))
    if path is None or "youtube_id" not in _first_line(path):
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise InputError(f"{path}: is no CSV ({error})") from error
    return [_kinetics_row(row, f"{path}, line {line}") for line, row in enumerate(rows, 2)]


def _kinetics_row(row: dict[str, str], place: str) -> Row:
    if not row.get("label"):
        raise UnlabeledError(
            f"{place}: has no label, so nothing can be scored on it; use a split with labels"
        )
    try:
        start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
        return Row(place, f"{row['youtube_id']}_{start:06d}_{end:06d}", row["label"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        expected = "label,youtube_id,time_start,time_end,split"
        raise InputError(
            f"{place}: cannot be read ({error!r}); allowed columns: {expected}"
        ) from error


def read_ucf101(root: Path, split: str) -> list[Row] | None:
    """``ucfTrainTestlist/trainlist01.txt`` and its like; a line is ``Class/video.avi`` with or
    without a label.
    """
    if split == ALL:
        train, test = read_ucf101(root, "train"), read_ucf101(root, "test")
        return None if train is None or test is None else train + test
    subset, number = _numbered_split(split)
    name = f"{subset}list0{number}.txt"
    path = _find(root, f"ucfTrainTestlist/{name}", name)
    return (
        None
        if path is None
        else [_ucf101_row(line, f"{path}, line {n}") for n, line in numbered_lines(path)]
    )


def _ucf101_row(line: str, place: str) -> Row:
    video = line.split()[0]
    if "/" not in video:
        raise InputError(
            f"{place}: found {line!r}, allowed 'Class/video.avi' or 'Class/video.avi label'"
        )
    return Row(place, video, video.split("/")[0])


def read_hmdb51(root: Path, split: str) -> list[Row] | None:
    """``testTrainMulti_7030_splits/<class>_test_split1.txt``: ``video.avi 0|1|2`` (unused, train,
    test).
    """
    subset, number = _numbered_split(split)
    ending = f"_test_split{number}.txt"
    folder = _find_folder(
        root, "testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits"
    )
    if folder is None:
        return None
    rows = []
    for path in sorted(folder.glob(f"*{ending}")):
        raw_class = path.name.removesuffix(ending)
        for line_number, line in numbered_lines(path):
            video, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise InputError(
                    f"{path}, line {line_number}: found {line!r}, allowed 'video.avi 0', 1 or 2"
                )
            if use in {"train": "1", "test": "2", ALL: "12"}[subset]:
                rows.append(
                    Row(f"{path}, line {line_number}", f"{raw_class}/{video.strip()}", raw_class)
                )
    return rows


def read_ssv2(root: Path, split: str) -> list[Row] | None:
    """``train.json`` and ``validation.json`` (or ``something-something-v2-*.json``): id and
    template of each.
    """
    name = f"{ {'val': 'validation'}.get(split, split) }.json"
    names = (name, f"something-something-v2-{name}")
    path = _find(
        root, *names, *(f"labels/{n}" for n in names), *(f"annotations/{n}" for n in names)
    )
    if path is None:
        return None
    try:
        items = json.loads(read_text(path))
        return [
            Row(f"{path}, item {i}", str(item["id"]), _template(item["template"]))
            for i, item in enumerate(items)
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); allowed: a JSON list of items with 'id' and "
            "'template'"
        ) from error


def _template(template: str) -> str:
    return re.sub(r"[\[\]]", "", template)


@dataclass(frozen=True)
class Format:
    """A published data set: how its annotation files are read, and the splits they hold."""

    read: Callable[[Path, str], list[Row] | None]
    splits: tuple[str, ...]


def _numbered_splits() -> tuple[str, ...]:
    """Splits of UCF101 and HMDB51; without a number, the first official split. ``all`` are its
    training and test videos together.
    """
    numbers = range(1, OFFICIAL_SPLITS + 1)
    subsets = (f"{subset}_{n}" for subset in ("train", "test") for n in numbers)
    return ("train", "val", "test", ALL, *subsets)


# The class names of each are in ``CLASS_LISTS``.
FORMATS: Mapping[str, Format] = {
    "kinetics400": Format(read_kinetics, ("train", "val", "test")),
    "kinetics600": Format(read_kinetics, ("train", "val", "test")),
    "kinetics700": Format(read_kinetics, ("train", "val", "test")),
    "ucf101": Format(read_ucf101, _numbered_splits()),
    "hmdb51": Format(read_hmdb51, _numbered_splits()),
    "ssv2": Format(read_ssv2, ("train", "val")),
}


class VideoFiles:
    """Video files, found by name whatever folder and container they ended up in."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths: dict[str, list[str]] = {}
        for path in paths:
            self._paths.setdefault(_stem(path), []).append(path)

    def find(self, video: str) -> str | None:
        """The file of ``name`` or ``class/name``: of several with one name, the one in its class's
        folder.
        """
        return min(
            self.named(video),
            key=lambda path: (not _is_in_same_folder(path, video), path),
            default=None,
        )

    def find_moved(self, path: str, taken: Set[str]) -> str | None:
        """The one file that can only be ``path`` in another folder or container, as others of its
        name are not.

        Args:
            path: where the file is listed.
            taken: files that are others for sure.
        """
        named = [other for other in self.named(path) if other not in taken]
        near = [other for other in named if _is_in_same_folder(other, path)]
        candidates = near or named
        return candidates[0] if len(candidates) == 1 else None

    def named(self, video: str) -> list[str]:
        """Every file of this name, in any folder and container."""
        return self._paths.get(_stem(video), [])


def _stem(video: str) -> str:
    """The file's name without a video's suffix. There may be a million, so no path objects."""
    name = video.rpartition("/")[2]
    return os.path.splitext(name)[0] if is_video(name) else name  # noqa: PTH122


def _is_in_same_folder(path: str, other: str) -> bool:
    return PurePosixPath(path).parent.name == PurePosixPath(other).parent.name


def is_video(name: str) -> bool:
    """Whether a file's name ends as a video's does."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122 (there may be a million)


def video_paths(root: Path) -> Iterator[str]:
    """The absolute path of every video file below a folder.

    Links are followed, after everything else. Each real folder is entered once, so links that loop
    come to an end.
    """
    entered: set[tuple[int, int]] = set()
    starts = [str(root.absolute())]
    for start in starts:  # grows on the way
        for folder, subfolders, files in os.walk(start):
            stat = os.stat(folder)  # noqa: PTH116
            if (stat.st_dev, stat.st_ino) in entered:
                subfolders.clear()
                continue
            entered.add((stat.st_dev, stat.st_ino))
            paths = (os.path.join(folder, name) for name in sorted(subfolders))  # noqa: PTH118
            starts.extend(path for path in paths if os.path.islink(path))  # noqa: PTH114
            for name in files:
                if is_video(name):
                    yield os.path.join(folder, name)  # noqa: PTH118


def _numbered_split(split: str) -> tuple[str, str]:
    """``train_2`` -> train, 2; ``train`` -> train, 1; the published sets have no ``val``: it is
    ``test``.
    """
    subset, _, number = split.partition("_")
    return {"val": "test"}.get(subset, subset), number or "1"


def _find(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _find_folder(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _first_line(path: Path) -> str:
    return next((line for _, line in numbered_lines(path)), "")


def class_labels(raw_classes: Sequence[str]) -> dict[str, int]:
    """Maps a class name to its label; spellings that clean up alike (``Brush_Hair``, ``brush
    hair``) are one.
    """
    return {clean_class_name(raw): label for label, raw in enumerate(raw_classes)}
