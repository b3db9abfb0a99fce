"""``open_study``: a study's record as tables and folders."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from orchestrator import StudyView, open_study
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import (
    finish,
    new_record,
    propose,
    run_trial,
    split_score,
    train_epochs,
    write_score,
)
from vitaclip.errors import InputError


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    record = new_record(LocalStore(tmp_path / "store"))
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6, 0.4)
    run_trial(record, 1, tmp_path / "c", 0.1, state="pruned")
    finish(record, propose(record, 2), "failed")
    train_epochs(record, propose(record, 3), tmp_path / "c", 0.3)
    return record


@pytest.fixture
def study(record: StudyRecord) -> StudyView:
    return open_study("depth")


def test_the_table_holds_parameters_metrics_and_scores(study: StudyView) -> None:
    table = study.dataframe()
    assert list(table.index) == [0, 1, 2, 3]
    assert list(table["state"]) == ["complete", "pruned", "failed", "not finished"]
    best = table.loc[0]
    assert (best["prompts.depth"], best["optimizer.lr"]) == (0, 1e-3)
    assert (best["val/top1"], best["best_epoch"], best["minutes"]) == (0.6, 2, 0.1)
    assert best["zero_shot/quickstart/top1"] == pytest.approx(2 / 3)
    assert table.loc[[2, 3], "val/top1"].isna().all()
    assert [trial.number for trial in study.trials] == [0, 1, 2]


def test_scores_that_came_later_are_read(record: StudyRecord, study: StudyView) -> None:
    record.files.store.delete("depth/trials/0000/scores")
    result = record.trial(0).result
    assert result is not None
    path = Path(record.store.uri) / "depth/trials/0000/result.json"
    path.write_text(result.model_copy(update={"protocols": (), "benchmarks": {}}).model_dump_json())
    assert "zero_shot/quickstart/top1" not in study.trials[0].benchmarks
    write_score(record, 0, split_score([0, 0], [0, 1]))
    assert study.dataframe().loc[0, "zero_shot/quickstart/top1"] == 0.5


def test_curves_have_a_row_per_epoch(study: StudyView) -> None:
    assert list(study.curves(0)["val/top1"]) == [0.2, 0.6, 0.4]
    running = study.curves(3)
    assert (list(running.index), running.index.name) == ([1], "epoch")
    assert study.curves(2).empty
    with pytest.raises(InputError, match="no trial 9"):
        study.curves(9)


def test_a_checkpoint_is_downloaded(study: StudyView, tmp_path: Path) -> None:
    folder = study.checkpoint(0)
    assert folder == Path("checkpoints/depth/0")
    info = json.loads((folder / "checkpoint.json").read_text())
    assert info["progress"]["epoch"] == 2
    assert study.checkpoint(3, tmp_path / "mine").is_dir()
    with pytest.raises(InputError, match="trial 2 of study 'depth' has no checkpoint"):
        study.checkpoint(2)
    with pytest.raises(InputError, match="no trial 9"):
        study.checkpoint(9)


def test_it_names_its_study_and_store(study: StudyView, tmp_path: Path) -> None:
    assert repr(study) == f"<study 'depth' in {tmp_path / 'store'}>"
    assert open_study("depth", store=f"file://{tmp_path}/store").config == study.config
    with pytest.raises(InputError, match="'dept': not found"):
        open_study("dept")


def test_what_cannot_be_read_is_left_out_with_a_warning(
    study: StudyView, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store/depth/trials/0001/result.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert list(study.dataframe().index) == [0, 2, 1, 3]
    assert "left out" in caplog.text
    assert "trials/0001/result.json" in caplog.text


def test_an_empty_study_is_an_empty_table(tmp_path: Path) -> None:
    new_record(LocalStore(tmp_path), name="new")
    assert open_study("new", str(tmp_path)).dataframe().empty
