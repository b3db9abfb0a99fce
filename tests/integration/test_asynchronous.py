"""Asynchronous searches with real trainings: a worker does what the driver decided, and a paused
trial trains as if it had never paused.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import StudyConfig
from orchestrator.execution.worker import Job, train_worker
from orchestrator.search.replay import replay
from orchestrator.search.study import Study
from orchestrator.storage.journal import read_journal
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import PROVENANCE, study_config
from testing.sweeps import untimed
from vitaclip.train import fit


@pytest.fixture
def config(small_training: dict[str, Any]) -> StudyConfig:
    """Four trials of up to three epochs, judged after the first and the second."""
    train = small_training | {"prompts": {"num_global": 2}, "epochs": 3}
    lr = {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}
    search = {
        "num_trials": 4,
        "lag": None,
        "sampler": {"name": "random"},
        "scheduler": {"name": "asha", "reduction_factor": 2},
    }
    return study_config(
        train=train, search_space={"optimizer.lr": lr}, search=search, benchmarks=[]
    )


@pytest.fixture
def record(config: StudyConfig, tmp_path: Path) -> StudyRecord:
    record = StudyRecord(LocalStore(tmp_path / "store"), config.name)
    record.create_or_check(config, PROVENANCE)
    return record


def test_a_promoted_trial_trains_as_if_it_had_never_paused(
    config: StudyConfig, record: StudyRecord
) -> None:
    study = Study(config, record)
    study.take_over()
    while (trial := study.next_trial()) is not None:
        assert isinstance(trial, TrialInfo)
        number = trial.number
        job = Job(record.store.uri, record.name, number)

        def report(metrics: dict[str, float], number: int = number) -> None:
            study.epoch_ended(number, metrics)

        train_worker(job, report)
        if study.training_ended(number) is not None:
            study.finish(number)
    for number in study.end_search():
        study.finish(number)
    kinds = {entry.decision.kind for entry in read_journal(record)}
    assert kinds >= {"pause", "promote", "give_up"}
    for result in record.results():
        alone = fit(record.trial(result.number).info.train).history
        assert untimed(list(result.history)) == untimed(list(alone[: len(result.history)]))
    assert {result.state for result in record.results()} == {"complete", "pruned"}
    assert replay(record).difference is None


def test_a_worker_waits_until_it_is_told_and_says_again_what_for(
    config: StudyConfig, record: StudyRecord
) -> None:
    study = Study(config, record)
    study.next_trial()
    job = Job(record.store.uri, record.name, 0)
    reported = threading.Event()
    worker = threading.Thread(target=train_worker, args=(job, lambda metrics: reported.set()))
    worker.start()
    reported.wait()
    assert worker.is_alive()
    study.epoch_ended(0, record.trial(0).history[-1])
    worker.join()
    assert len(record.trial(0).history) == 1
    # another worker starts where this one ended: it reports before it waits
    heard: list[float] = []
    train_worker(job, lambda metrics: heard.append(metrics["epoch"]))
    assert heard == [1]
