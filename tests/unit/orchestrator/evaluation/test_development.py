"""A development split: classes never trained on, scored zero-shot while training goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testing.motions import MOTIONS
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.errors import InputError
from vitaclip.train import fit


def config_of(backbone: BackboneConfig, dataset: str) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "backbone": backbone.model_dump(),
            "text": {"num_context": 2},
            "data": {
                "dataset": dataset,
                "development": "unseen",
                "num_frames": 2,
                "augment": {"rand_augment": None},
            },
            "epochs": 1,
            "batch_size": 8,
            "num_threads": 1,
        }
    )


@pytest.fixture
def unseen(motion_dataset: str) -> Path:
    """The validation clips again, under names that training does not know."""
    root = Path(os.environ["VITACLIP_DATA_MOTIONS"])
    (root / "unseen_classes.txt").write_text("\n".join(f"slowly {name}" for name in MOTIONS))
    rows = (root / "val.csv").read_text().splitlines()
    (root / "unseen.csv").write_text("\n".join(row.replace(",", ",slowly ") for row in rows))
    return root


def test_its_accuracy_is_a_metric_of_every_epoch(
    small_backbone: BackboneConfig, motion_dataset: str, unseen: Path
) -> None:
    metrics = fit(config_of(small_backbone, motion_dataset)).history[-1]
    assert 0 <= metrics["development/top1"] <= metrics["development/top5"] <= 1


def test_classes_that_are_trained_are_refused(
    small_backbone: BackboneConfig, motion_dataset: str, unseen: Path
) -> None:
    (unseen / "unseen_classes.txt").write_text("\n".join(MOTIONS))
    (unseen / "unseen.csv").write_text((unseen / "val.csv").read_text())
    with pytest.raises(InputError, match=r"data\.development.*shares classes.*moving"):
        fit(config_of(small_backbone, motion_dataset))
