"""A worker that was given up and comes back damages nothing: neither a newer attempt nor a finished
trial.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.execution.worker import Job, train_worker
from orchestrator.storage.attempts import SupersededError, begin_attempt
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import (
    begin,
    best_checkpoint,
    epochs_kept,
    finish,
    history_of,
    propose,
    publish,
    train_epochs,
)


def test_a_given_up_worker_cannot_publish_once_another_began(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    first = begin(record, 0)
    publish(record, trial, first, tmp_path / "a", 0.1, 0.2)
    second = begin(record, 0)
    with pytest.raises(SupersededError, match="attempt 2 has begun"):
        publish(record, trial, first, tmp_path / "a", 0.1, 0.2, 0.9)
    publish(record, trial, second, tmp_path / "b", 0.1, 0.2, 0.3)
    assert [m["val/top1"] for m in record.trial(0).history] == [0.1, 0.2, 0.3]


def test_what_a_given_up_worker_was_uploading_is_never_read(
    record: StudyRecord, tmp_path: Path
) -> None:
    """It stood still between its last look and the end of the upload, and was far ahead."""
    trial = propose(record, 0)
    first = begin(record, 0)
    publish(record, trial, first, tmp_path / "a", 0.1)
    begin(record, 0)
    late = "depth/trials/0000/checkpoints/attempt-0001/epoch-0003"
    record.store.upload_folder(tmp_path / "a", late)
    assert epochs_kept(record, 0) == [1]
    assert len(record.trial(0).history) == 1
    # and what it left is cleared away when the newer attempt publishes
    publish(record, trial, 2, tmp_path / "b", 0.1, 0.2)
    assert record.store.list(late) == []


def test_attempts_follow_one_another_over_several_breakdowns(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "a", 0.1, 0.9)
    for _ in range(3):  # attempts that ended before their first epoch
        begin(record, 0)
    publish(record, trial, 4, tmp_path / "b", 0.1, 0.9, 0.3)
    assert epochs_kept(record, 0) == [2, 3]
    assert best_checkpoint(record, 0) == "depth/trials/0000/checkpoints/attempt-0001/epoch-0002"


def test_a_finished_trials_checkpoints_are_never_touched(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "a", 0.1, 0.2, 0.3)
    result = finish(record, trial, "complete", 0.1, 0.2, 0.3)
    before = record.store.list("depth/trials/0000")
    for tops in ((0.1, 0.2), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 0.9)):
        with pytest.raises(SupersededError, match="has finished"):
            publish(record, trial, 1, tmp_path / "late", *tops)
    assert record.store.list("depth/trials/0000") == before
    assert result.checkpoint is not None
    record.store.download_folder(result.checkpoint, tmp_path / "best")
    assert begin_attempt(record, 0) is None


def test_workers_that_publish_the_same_epoch_at_once_damage_nothing(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    for turn in range(20):
        attempts = [begin(record, 0), begin(record, 0)]
        threads = [
            threading.Thread(
                target=_try_to_publish, args=(record, trial, attempt, tmp_path / str(attempt))
            )
            for attempt in attempts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        key = record.trial(0).newest_checkpoint
        assert key is not None
        assert f"attempt-{attempts[1]:04d}" in key
        record.store.download_folder(key, tmp_path / "fetched" / str(turn))


def _try_to_publish(record: StudyRecord, trial: TrialInfo, attempt: int, folder: Path) -> None:
    with suppress(SupersededError):
        publish(record, trial, attempt, folder, 0.1, 0.2)


def test_two_workers_that_begin_at_once_are_two_attempts(record: StudyRecord) -> None:
    propose(record, 0)
    numbers: list[int] = []
    threads = [threading.Thread(target=lambda: numbers.append(begin(record, 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_a_late_worker_overwrites_no_log(record: StudyRecord) -> None:
    propose(record, 0)
    for _ in range(2):
        begin(record, 0)
    record.store.write_text(record.keys.trial(0).log(2), "new\n")
    record.store.write_text(record.keys.trial(0).log(1), "old\n")
    assert record.trial(0).log == "old\nnew\n"


def test_training_of_a_trial_that_has_finished_ends_at_once(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "a", 0.1)
    finish(record, trial, "failed", 0.1)
    before = record.store.list("")
    train_worker(Job(record.store.uri, record.name, 0), report=lambda _: pytest.fail("it trained"))
    assert record.store.list("") == before


def test_an_attempt_says_who_it_is_and_what_it_goes_on_from(
    record: StudyRecord, tmp_path: Path
) -> None:
    train_epochs(record, propose(record, 0), tmp_path / "a", 0.1)
    begin(record, 0)
    told = json.loads((tmp_path / "store/depth/trials/0000/attempts/0002.json").read_text())
    assert told["goes_on_from"] == "depth/trials/0000/checkpoints/attempt-0001/epoch-0001"
    assert told["host"]
    assert history_of(0.1) == record.trial(0).history
