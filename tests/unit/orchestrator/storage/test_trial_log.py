"""The log of a trial: what its attempts did, line by line, also where one of them fails."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from orchestrator import show
from orchestrator.config import StudyConfig
from orchestrator.execution.worker import Job, train_worker
from orchestrator.search.study import Study
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_log import TrialLog
from orchestrator.yaml_file import read_yaml
from tests.integration.test_sweep import STUDY


@pytest.fixture
def record(motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    """A study with one proposed trial of three epochs."""
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    (tmp_path / "study.yaml").write_text(STUDY.replace("high: num_layers", "high: 4"))
    config = StudyConfig.model_validate(read_yaml(tmp_path / "study.yaml"))
    record = StudyRecord(open_store(str(tmp_path / "store")), config.name)
    record.create_or_check(config, {})
    Study(config, record).next_trial()
    return record


def train(record: StudyRecord, fail_at: int | None = None) -> None:
    def report(metrics: dict[str, float]) -> None:
        logging.getLogger("vitaclip.data.loader").warning("broken video: %s", "x.mp4")
        if metrics["epoch"] == fail_at:
            raise RuntimeError("the node went away")

    train_worker(Job(record.store.uri, record.name, 0), report)


def test_a_trials_log_tells_of_every_attempt_epoch_and_warning(
    record: StudyRecord, capfd: pytest.CaptureFixture[str]
) -> None:
    assert record.trial(0).log == ""
    with pytest.raises(RuntimeError):
        train(record, fail_at=2)
    train(record)

    assert show.main([f"{record.name}/0", "--log"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    first = ["start", "epoch", "warning", "epoch", "warning", "end"]
    assert [line["event"] for line in lines] == [*first, "start", "epoch", "warning", "end"]
    assert lines[2]["message"] == "broken video: x.mp4"
    assert lines[5]["error"] == "RuntimeError: the node went away"
    assert "error" not in lines[-1]
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert [line["val/top1"] for line in epochs] == [
        metrics["val/top1"] for metrics in record.trial(0).history
    ]
    times = [line["time"] for line in lines]
    assert times == sorted(times)


def test_a_loss_that_is_no_number_is_logged(record: StudyRecord) -> None:
    with TrialLog(record, 0, 1) as log:
        log.add("epoch", loss=float("nan"))
    assert json.loads(record.trial(0).log.splitlines()[1])["loss"] == "NaN"
