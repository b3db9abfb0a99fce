"""Everything that can be checked before a worker starts is checked here."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import torch

from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.search_space import apply, edge_values
from orchestrator.settings import Settings
from orchestrator.storage.store import open_store
from orchestrator.tracking.client import check_tracking
from vitaclip.config import TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.errors import InputError
from vitaclip.model.backbone import check_backbone, num_layers


def preflight(config: StudyConfig, settings: Settings) -> None:
    """Store, tracking, backbone and datasets; renders the quickstart's world if it is not there yet.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    open_store(settings.store_uri).check()
    check_tracking(settings.tracking_uri)
    check_backbone(config.train.backbone)
    _check_depths(config)
    for dataset, split in dataset_splits(config):
        if not load_dataset(dataset, split).clips:
            raise InputError(f"dataset {dataset}, split {split}: found no clip; check the annotation file")


def provenance(config: StudyConfig) -> dict[str, Scalar]:
    """What the study runs on: code, lock file, versions, machine, and the datasets' digests."""
    root = Path(__file__).resolve().parents[2]
    lock = root / "requirements.lock"
    return {
        "git_commit": _git(root, "rev-parse", "HEAD") or os.environ.get("VITACLIP_GIT_COMMIT") or None,
        "git_dirty": bool(_git(root, "status", "--porcelain")),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {platform.machine()}",
        **{f"dataset.{name}.{split}": dataset_digest(name, split) for name, split in dataset_splits(config)},
    }


def dataset_digest(dataset: str, split: str) -> str:
    """Of the classes and of the clips' file names and labels: the same wherever the dataset lies."""
    manifest = load_dataset(dataset, split)
    clips = [(Path(clip.path).name, clip.label) for clip in manifest.clips]
    return hashlib.sha256(repr((manifest.classes, clips)).encode()).hexdigest()[:16]


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed package has no repository
    return done.stdout.strip()


def dataset_splits(config: StudyConfig) -> list[tuple[str, str]]:
    """Each (dataset, split) that the study trains, validates or is scored on."""
    space = config.search_space
    datasets = edge_values(space["data.dataset"]) if "data.dataset" in space else [config.train.data.dataset]
    trained = [(str(dataset), split) for dataset in datasets for split in ("train", "val")]
    if config.train.data.development is not None:
        trained += [(str(dataset), config.train.data.development) for dataset in datasets]
    return trained + [(b.dataset, split) for b in config.benchmarks for split in b.splits]


def _check_depths(config: StudyConfig) -> None:
    """Prompts deeper than the backbone would fail every trial that draws them."""
    key = "prompts.depth"
    depths = edge_values(config.search_space[key]) if key in config.search_space else ()
    for train in (config.train, *(apply(config.train, {key: depth}) for depth in depths)):
        _check_depth(train)


def _check_depth(train: TrainConfig) -> None:
    layers, depth = num_layers(train.backbone), train.prompts.depth
    if depth is not None and depth > layers:
        raise InputError(f"prompts.depth: found {depth}, {train.backbone.name} has {layers} layers")
