"""Everything that can be checked before a worker starts is checked here."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import platform
from pathlib import Path

import torch

from orchestrator.code_version import code_version
from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.search_space import apply, edge_values
from orchestrator.settings import Settings
from orchestrator.storage.records.study import StudyInputs
from orchestrator.storage.stores.opening import open_store
from vitaclip.clip_config import num_layers
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.data.identity import identify
from vitaclip.errors import InputError
from vitaclip.model.backbone import check_backbone, load_backbone
from vitaclip.service import attempt


def preflight(config: StudyConfig, settings: Settings) -> None:
    """Store, backbone and datasets; renders the quickstart's world if it is not there
    yet.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    store = open_store(settings.store_uri)
    attempt(
        f"store {store.uri}", store.check, "check VITACLIP_STORE, S3_ENDPOINT_URL and the server"
    )
    check_backbone(config.train.backbone)
    _check_depths(config)
    for dataset, split in dataset_splits(config):
        if not load_dataset(dataset, split).clips:
            raise InputError(
                f"dataset {dataset}, split {split}: found no clip; check the annotation file"
            )


def provenance() -> dict[str, Scalar]:
    """What the study runs on: code, lock file, versions, machine."""
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    return {
        **code_version().model_dump(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU {platform.machine()}",
    }


def study_inputs(config: StudyConfig) -> StudyInputs:
    """Digests of all data and weights that the study reads.

    Raises:
        InputError: a dataset or the weights cannot be read.
    """
    return StudyInputs(
        data={
            f"{name}/{split}": identify(load_dataset(name, split))
            for name, split in dataset_splits(config)
        },
        backbones={
            _backbone_name(backbone): load_backbone(backbone).sha256
            for backbone in _backbones(config)
        },
    )


def _backbone_name(config: BackboneConfig) -> str:
    size = "" if config.image_size is None else f" at {config.image_size} pixels"
    return f"{config.name} {config.pretrained}{size}"


def _backbones(config: StudyConfig) -> list[BackboneConfig]:
    """Those that trials may have; combinations that do not exist are left out, and fail their
    trials.
    """
    keys = [key for key in config.search_space if key.startswith("backbone.")]
    found = []
    for values in itertools.product(*(edge_values(config.search_space[key]) for key in keys)):
        with contextlib.suppress(InputError):
            backbone = apply(config.train, dict(zip(keys, values, strict=True))).backbone
            check_backbone(backbone)
            found.append(backbone)
    return found


def dataset_splits(config: StudyConfig) -> list[tuple[str, str]]:
    """Each (dataset, split) that the study trains, validates or is scored on."""
    space = config.search_space
    datasets = (
        edge_values(space["data.dataset"])
        if "data.dataset" in space
        else [config.train.data.dataset]
    )
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
