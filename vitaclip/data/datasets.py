"""Datasets by name: where each lives, and how its own annotation files become a ``Manifest``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vitaclip.class_names import clean_class_name
from vitaclip.data.class_draws import DRAWS, draw
from vitaclip.data.formats import (
    CLASS_LISTS,
    FORMATS,
    Annotations,
    Row,
    UnlabeledError,
    VideoFiles,
    class_labels,
    video_paths,
)
from vitaclip.data.manifest import Clip, Manifest, read_class_list, read_list
from vitaclip.data.vifi_clip import PUBLISHED, read_vifi_clip, vifi_clip_splits
from vitaclip.errors import InputError, suggest

QUICKSTART = "quickstart"
QUICKSTART_ROOT = Path("data/quickstart")

_logger = logging.getLogger(__name__)


def load_dataset(name: str, split: str) -> Manifest:
    """Returns the clips of one split of a dataset.

    The dataset's folder comes from the environment variable ``VITACLIP_DATA_<NAME>``; "quickstart"
    is rendered to ``data/quickstart`` at first use. Published data sets are read from their own
    annotation files; every data set may also be given as list files, ``<split>.csv`` or
    ``<split>.txt``. Raises InputError for an unset variable, a missing folder or split, and for a
    line of an annotation file that cannot be read.
    """
    root = dataset_root(name)
    return read_dataset(name, split, root, lambda: VideoFiles(video_paths(root)))


def load_training(name: str, train_split: str, val_split: str) -> tuple[Manifest, Manifest]:
    """The clips that a training learns from, and those that it is validated on.

    Raises InputError as ``load_dataset`` does, and if the two have other classes or another order
    of them.
    """
    train, val = load_dataset(name, train_split), load_dataset(name, val_split)
    if train.classes != val.classes:
        raise InputError(
            f"dataset {name}: its splits {train_split!r} ({len(train.classes)} classes) and "
            f"{val_split!r} ({len(val.classes)}) have different classes; data.train_split and "
            "data.val_split must name splits of the same classes in the same order"
        )
    return train, val


def read_dataset(name: str, split: str, root: Path, files: Callable[[], VideoFiles]) -> Manifest:
    """``load_dataset`` of annotations in ``root``; ``files`` finds the videos, where a format needs
    that.

    Args:
        name: of the dataset.
        split: one of its splits.
        root: the folder of the annotations.
        files: finds the videos, where a format needs that.
    """
    found = _official(name, split, root)
    if found is None and split not in _list_files(root):
        found = read_vifi_clip(name, split, root)
    if found is None:
        return _read_list_dataset(name, split, root, files)
    manifest = _manifest(name, split, found.rows, files())
    if found.classes is None or len(found.classes) == len(manifest.classes):
        # a list of all classes is read in the data set's own order, so that splits fit together
        return manifest
    return keep_classes(manifest, found.classes, found.classes_place)


def _official(name: str, split: str, root: Path) -> Annotations | None:
    """What a data set's own annotation files say of a split; None: they are not there."""
    drawn = draw(name, split)
    source = split if drawn is None else drawn.of
    if name not in FORMATS or source not in FORMATS[name].splits:
        return None
    rows = FORMATS[name].read(root, source)
    return None if rows is None else Annotations(rows, None if drawn is None else drawn.classes)


def available_splits(name: str, root: Path) -> tuple[str, ...]:
    """The splits that a dataset's folder has annotations for; of those that overlap, the published
    ones.

    Raises InputError if there is none.
    """
    if name in FORMATS:
        numbered = [split for split in FORMATS[name].splits if split[-1].isdigit()]
        candidates = numbered or FORMATS[name].splits
        if official := tuple(split for split in candidates if _is_labeled(name, split, root)):
            return official
    if splits := tuple(_list_files(root)) or vifi_clip_splits(name, root):
        return splits
    raise InputError(
        f"dataset {name!r}: found no annotations in {root}; a list file train.csv or .txt will do"
    )


def _is_labeled(name: str, split: str, root: Path) -> bool:
    """Whether a published split is there, with its labels; a warning tells if only these are
    missing.
    """
    try:
        return FORMATS[name].read(root, split) is not None
    except UnlabeledError as error:
        _logger.warning("%s: split %s is left out: %s", name, split, error)
        return False


def _list_files(root: Path) -> list[str]:
    """The splits given as list files. Class lists are none, nor are the files of published data
    sets.
    """
    lists = (path for path in root.iterdir() if path.suffix in (".csv", ".txt"))
    return sorted({path.stem for path in lists if not path.stem.endswith("classes")})


def dataset_root(name: str) -> Path:
    """The folder where a dataset lives. Raises InputError when no setting names one that exists."""
    variable = root_variable(name)
    found = os.environ.get(variable)
    if name == QUICKSTART:
        return _quickstart_root(Path(found) if found else QUICKSTART_ROOT)
    if not found:
        raise InputError(f"dataset {name!r}: {variable} is not set; set it to the dataset's folder")
    if found.startswith("s3://"):
        raise InputError(
            f"dataset {name!r}: {variable} is {found}; only 'data prepare' reads from S3"
        )
    if not Path(found).is_dir():
        raise InputError(f"dataset {name!r}: {variable} is {found}, which is not a folder")
    return Path(found)


def root_variable(name: str) -> str:
    """The environment variable that says where a dataset lives."""
    return f"VITACLIP_DATA_{name.upper().replace('-', '_')}"


def _quickstart_root(root: Path) -> Path:
    # here: it needs an encoder, which other datasets do not
    from vitaclip.quickstart.world import (
        ensure_world,
    )

    ensure_world(root)
    return root


def _manifest(name: str, split: str, rows: Sequence[Row], files: VideoFiles) -> Manifest:
    """Finds each row's label and file. Videos without a file are listed, and a warning counts
    them.
    """
    raw_classes = read_class_list(CLASS_LISTS / f"{name}.txt")
    labels = class_labels(raw_classes)
    clips, missing = [], []
    for row in rows:
        label, path = _label(row.raw_class, labels, row.place, name), files.find(row.video)
        if path is None:
            missing.append(row.video)
        else:
            clips.append(Clip(path, label))
    if not clips:
        raise InputError(
            f"dataset {name!r}, split {split!r}: none of the {len(rows)} listed videos is there"
        )
    if missing:
        _logger.warning(
            "%s %s: %d of %d listed videos are missing", name, split, len(missing), len(rows)
        )
    classes = tuple(map(clean_class_name, raw_classes))
    return Manifest(name, classes, tuple(clips), raw_classes, tuple(missing))


def _label(raw_class: str, labels: Mapping[str, int], place: str, name: str) -> int:
    label = labels.get(clean_class_name(raw_class))
    if label is None:
        hint = suggest(clean_class_name(raw_class), labels)
        raise InputError(
            f"{place}: found class {raw_class!r}, allowed: {len(labels)} classes of {name}{hint}"
        )
    return label


def keep_classes(manifest: Manifest, raw_classes: Sequence[str], place: str) -> Manifest:
    """Only the clips of some classes, relabeled in the order given.

    Args:
        manifest: the clips, and the names that a class may have.
        raw_classes: those to keep.
        place: where they are listed, for messages.

    Raises:
        InputError: a class is none of the manifest's, or no clip is left.
    """
    labels = class_labels(manifest.raw_classes)
    kept = [_label(raw, labels, place, manifest.name) for raw in raw_classes]
    new_labels = {old: new for new, old in enumerate(kept)}
    clips = tuple(
        replace(c, label=new_labels[c.label]) for c in manifest.clips if c.label in new_labels
    )
    if not clips:
        raise InputError(
            f"dataset {manifest.name!r}: no clip of the {len(raw_classes)} chosen classes"
        )
    return replace(
        manifest,
        classes=tuple(manifest.classes[old] for old in kept),
        clips=clips,
        raw_classes=tuple(manifest.raw_classes[old] for old in kept),
    )


def _read_list_dataset(
    name: str, split: str, root: Path, files: Callable[[], VideoFiles]
) -> Manifest:
    """Reads ``<split>.csv`` or ``.txt`` with the class names of ``<split>_classes`` or ``classes``
    beside it.

    A published data set needs no file of class names.
    """
    found = _list_files(root)
    official = FORMATS[name].splits if name in FORMATS else ()
    splits = sorted({*found, *official, *DRAWS.get(name, ()), *PUBLISHED.get(name, ())})
    if split not in found:
        raise InputError(
            f"dataset {name!r}: found no annotations of split {split!r} in {root}, splits: "
            f"{', '.join(splits) or 'none'}{suggest(split, splits)}; a list file <split>.csv or "
            ".txt will do"
        )
    published = CLASS_LISTS / f"{name}.txt" if name in FORMATS else None
    names = _text_or_csv(root / f"{split}_classes") or _text_or_csv(root / "classes") or published
    raw_classes = read_class_list(names or root / f"{split}_classes.txt")
    classes = tuple(map(clean_class_name, raw_classes))
    clips = read_list(_text_or_csv(root / split) or root / f"{split}.csv", raw_classes)
    return Manifest(name, classes, _find_moved(clips, files, f"{name} {split}"), raw_classes)


def _text_or_csv(stem: Path) -> Path | None:
    """The file ``<stem>.txt`` or ``<stem>.csv``; None: there is neither. Raises InputError if there
    are both.
    """
    paths = [
        path
        for suffix in (".txt", ".csv")
        if (path := stem.with_name(stem.name + suffix)).is_file()
    ]
    if len(paths) == 2:
        raise InputError(f"{paths[0]}: found {paths[1].name} too; keep the one that is right")
    return paths[0] if paths else None


def _find_moved(
    clips: Sequence[Clip], files: Callable[[], VideoFiles], place: str
) -> tuple[Clip, ...]:
    """The clips of a list; one that is not where it is listed is looked for by its name, and a
    warning tells.
    """
    folders = _Listings()
    absent = {clip.path for clip in clips if not folders.hold(clip.path)}
    if not absent:
        return tuple(clips)
    found = files()
    absent = {path for path in absent if path not in found.named(path)}
    taken = {clip.path for clip in clips} - absent
    moved = {
        path: new for path in sorted(absent) if (new := found.find_moved(path, taken)) is not None
    }
    if moved:
        old, new = next(iter(moved.items()))
        _logger.warning(
            "%s: %d listed videos lie elsewhere, such as %s: %s", place, len(moved), old, new
        )
    return tuple(replace(clip, path=moved.get(clip.path, clip.path)) for clip in clips)


class _Listings:
    """Which files are there, by one look at each folder: a million single questions would take a
    network minutes.
    """

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def hold(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder))  # noqa: PTH208 (names only)
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]
