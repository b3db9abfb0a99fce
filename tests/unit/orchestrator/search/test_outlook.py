"""What a study's next decisions wait for, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.search.outlook import next_judgment, outlook
from orchestrator.search.study import Study
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import STARTED, finish, new_record, propose, run_trial
from testing.study_simulation import MemoryStore, SimulatedRecord


def record_of(**search: Any) -> StudyRecord:
    return new_record(MemoryStore(), benchmarks=[], search={"num_trials": 5} | search)


def outlook_of(record: StudyRecord) -> list[str]:
    return outlook(Study(record.info.config, record))


def test_a_trial_waits_for_those_that_it_is_proposed_from(tmp_path: Path) -> None:
    record = record_of(lag=2)
    propose(record, 0)
    assert outlook_of(record) == ["Trial 1 is proposed next: a slot is free."]
    propose(record, 1)
    assert outlook_of(record) == ["Trial 2 is proposed after the end of trial 0."]
    finish(record, record.trial(0).info, "complete", 0.5)
    assert outlook_of(record) == ["Trial 2 is proposed next: a slot is free."]


def test_a_trial_waits_for_a_slot(tmp_path: Path) -> None:
    record = record_of()
    propose(record, 0)
    propose(record, 1)
    assert outlook_of(record) == ["Trial 2 is proposed when one of the 2 slots is free."]


def test_the_end_and_what_comes_before_it_have_reasons(tmp_path: Path) -> None:
    record = record_of(num_trials=2)
    run_trial(record, 0, tmp_path, 0.1, 0.2, 0.3)
    record.add_change(ControlChange(paused=True))
    [paused] = outlook_of(record)
    assert "`vitaclip control depth --resume` ends that" in paused
    record.add_change(ControlChange(paused=False))
    run_trial(record, 1, tmp_path, 0.1, 0.2, 0.3, write=False)
    assert outlook_of(record) == [
        "No further trial is proposed: all 2 are.",
        "Trained: trial 1. Benchmarks are next, then the result.",
    ]
    finish(record, record.trial(1).info, "complete", 0.3)
    assert outlook_of(record) == [
        "Nothing: every trial has its result, and no further one is wanted."
    ]


def test_a_budget_that_is_spent_is_named() -> None:
    record = record_of(max_wall_hours=1e-9)
    propose(record, 0)
    [reason] = outlook_of(record)
    assert reason.startswith("No further trial is proposed: 0.0 hours since the study began")


def test_paused_trials_wait_for_their_rank() -> None:
    record = SimulatedRecord(MemoryStore(), "depth")
    config = record_of(
        lag=None, num_trials=6, scheduler={"name": "asha", "reduction_factor": 2}
    ).info.config
    record.create_or_check(config, {})
    study = Study(config, record)
    for top1 in (0.5, 0.4):
        trial = study.next_trial()
        assert trial is not None
        assert trial != "wait"
        metrics = {"epoch": 1, "val/top1": top1, "time/epoch_s": 1.0}
        record.train(trial.number, [metrics])
        assert next_judgment(study, trial, 0) == "after epoch 1: its rank there"
        study.epoch_ended(trial.number, metrics)
    _, paused = outlook(study)
    assert paused.startswith("Paused: trials 0, 1. One goes on when it is among the best 1/2 ")


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, "after epoch 2: val/top1 0.25"), (2, "trains to epoch 3")]
)
def test_thresholds_ahead_are_told(epoch: int, expected: str) -> None:
    record = record_of()
    trial = propose(record, 0).model_copy(update={"thresholds": {2: 0.25}, "proposed_at": STARTED})
    study = Study(record.info.config, record)
    assert next_judgment(study, trial, epoch) == expected
