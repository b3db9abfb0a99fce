"""Datasets by name: where each lives, and how its own annotation files become a ``Manifest``."""

from __future__ import annotations

import os
from pathlib import Path

from vitaclip.data.manifest import Manifest, read_class_list, read_list
from vitaclip.errors import InputError, suggest

QUICKSTART = "quickstart"
QUICKSTART_ROOT = Path("data/quickstart")


def load_dataset(name: str, split: str) -> Manifest:
    """Returns the clips of one split of a dataset.

    The dataset's folder comes from the environment variable ``VITACLIP_DATA_<NAME>``; "quickstart" is
    rendered to ``data/quickstart`` at first use. Raises InputError for an unset variable, a missing folder or
    split, and for a line of an annotation file that cannot be read.
    """
    return read_list_dataset(name, split, dataset_root(name))


def dataset_root(name: str) -> Path:
    """The folder where a dataset lives. Raises InputError when no setting names one that exists."""
    variable = f"VITACLIP_DATA_{name.upper().replace('-', '_')}"
    found = os.environ.get(variable)
    if name == QUICKSTART:
        return _quickstart_root(Path(found) if found else QUICKSTART_ROOT)
    if not found:
        raise InputError(f"dataset {name!r}: {variable} is not set; set it to the dataset's folder")
    if not Path(found).is_dir():
        raise InputError(f"dataset {name!r}: {variable} is {found}, which is not a folder")
    return Path(found)


def _quickstart_root(root: Path) -> Path:
    from vitaclip.quickstart.world import (
        ensure_world,
    )  # here: it needs an encoder, which other datasets do not

    ensure_world(root)
    return root


def read_list_dataset(name: str, split: str, root: Path) -> Manifest:
    """Reads ``<split>.csv`` or ``.txt`` with the classes of ``<split>_classes.txt`` or ``classes.txt``."""
    splits = sorted({path.stem for path in root.glob("*.[ct][sx][vt]") if not path.stem.endswith("classes")})
    if split not in splits:
        raise InputError(
            f"dataset {name!r}: found no split {split!r} in {root}, allowed: {', '.join(splits) or 'none'}"
            f"{suggest(split, splits)}; a split is a list file, <split>.csv or <split>.txt"
        )
    list_path = _first_existing(root / f"{split}.csv", root / f"{split}.txt")
    classes = read_class_list(_first_existing(root / f"{split}_classes.txt", root / "classes.txt"))
    return Manifest(name, classes, read_list(list_path, classes), raw_classes=classes)


def _first_existing(*paths: Path) -> Path:
    """The first path that exists, or the last one, whose absence the reader then reports."""
    return next((path for path in paths if path.is_file()), paths[-1])
