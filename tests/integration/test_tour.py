"""The notebook ``docs/tour.ipynb`` runs on a study such as `make sweep` leaves behind."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.motions import write_motions
from testing.paths import ROOT
from testing.study_fixtures import begin, finish, new_record, propose, run_trial
from vitaclip.config import TrainConfig
from vitaclip.train import EpochEnd, fit

TRAIN = {
    "backbone": {"name": "quickstart-tiny", "pretrained": "quickstart"},
    "data": {
        "dataset": "motions",
        "num_frames": 2,
        "sampling": "uniform",
        "augment": {"rand_augment": None},
    },
    "batch_size": 8,
    "epochs": 1,
    "num_threads": 1,
}


def train_best(record: StudyRecord, folder: Path) -> None:
    """A trial with a checkpoint that can predict."""
    trial = propose(record, 0)
    attempt = begin(record, trial.number)

    def publish(end: EpochEnd) -> None:
        end.save(folder)
        publish_checkpoint(record, trial.number, attempt, folder, end.history)

    fit(TrainConfig.model_validate(TRAIN), on_epoch_end=publish)
    finish(record, trial, "complete", 0.9)


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = tmp_path / "data/quickstart/val"
    videos.mkdir(parents=True)
    write_motions(videos, num_train=8, num_val=4)
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(videos))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    record = new_record(LocalStore(tmp_path / "store"), name="prompt_depth")
    train_best(record, tmp_path / "best")
    run_trial(record, 1, tmp_path / "c", 0.2, 0.6)
    run_trial(record, 2, tmp_path / "c", 0.1, state="pruned")
    (tmp_path / "docs").mkdir()

    notebook = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()

    outputs = [str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert "How deep?" in outputs[0]
    assert "zero_shot/quickstart/top1" in outputs[1]
    assert "image/png" in outputs[4]
    assert "trained parameters" in outputs[5]
    assert outputs[6].count(".mp4") >= 3
