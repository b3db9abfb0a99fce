"""Shared by all tests: one thread for torch, so that two cores are not fought over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import settings

from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.motions import write_motions
from testing.paths import SHARED
from testing.released_reference import synthetic_record
from testing.study_fixtures import new_record
from vitaclip.config import BackboneConfig

torch.set_num_threads(1)
# How long an example takes says nothing on a busy machine.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
# Ray makes its workers give way to everything else: on a busy machine they would not get on at all.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session", autouse=True)
def frame_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests fill no cache but their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path_factory.mktemp("frames")))
        yield


# Recorded cases of the authors' own code; they lie beside the repository where the project is
# developed.
AUTHORS_RECORDS = sorted((SHARED / "parity").glob("tiny_*.pt"))


@pytest.fixture(
    params=["own_full", "own_UC", *AUTHORS_RECORDS], ids=lambda case: getattr(case, "stem", case)
)
def released_record(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A case of the released model: its state dict, outputs, gradients and three optimizer
    steps.
    """
    if isinstance(request.param, Path):
        return dict(torch.load(request.param, weights_only=True))
    return dict(synthetic_record(class_specific=request.param == "own_full"))


@pytest.fixture(scope="session")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> BackboneConfig:
    """A small CLIP with seeded random weights, under a name that open_clip knows in this
    process.
    """
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": 32,
            "layers": 2,
            "head_width": 16,
        },
        "text_cfg": {"width": 32, "heads": 2, "layers": 2},
    }
    path = tmp_path_factory.mktemp("configs") / "ViT-test-small.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return BackboneConfig(name="ViT-test-small", pretrained="random")


@pytest.fixture(scope="session")
def motion_dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a dataset of real mp4 files in which a square moves: 24 training and 8 validation
    clips.
    """
    root = tmp_path_factory.mktemp("motions")
    write_motions(root, num_train=24, num_val=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITACLIP_DATA_MOTIONS", str(root))
        patch.setenv("VITACLIP_FRAME_CACHE", str(root / "cache"))
        yield "motions"


@pytest.fixture(scope="session")
def small_training(small_backbone: BackboneConfig, motion_dataset: str) -> dict[str, Any]:
    """Fields of a training that takes a second an epoch; the tests add theirs."""
    return {
        "backbone": small_backbone.model_dump(),
        "data": {
            "dataset": motion_dataset,
            "num_frames": 4,
            "stride": 2,
            "augment": {"rand_augment": None},
        },
        "batch_size": 8,
        "num_threads": 1,
    }


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A fresh MLflow database: made once, since its migrations take seconds."""
    from orchestrator.tracking.mlflow.client import check_tracking  # most tests need no MLflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    check_tracking(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def mlflow_uri(tmp_path: Path, empty_database: bytes) -> str:
    """The address of an MLflow of the test's own, ``mlflow.db`` in its folder."""
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """The record of a study that was started and has no trials yet."""
    return new_record(LocalStore(tmp_path / "store"))
