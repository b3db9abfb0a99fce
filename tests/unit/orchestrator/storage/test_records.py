"""The study's record: what is written once stays, and checkpoints are pruned to the best and the
last.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.code_version import CodeVersion, code_version, source_sha256
from orchestrator.config import Objective
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.records.study import StudyInputs
from orchestrator.storage.same_study import config_hash
from orchestrator.storage.stores.base import KeyExistsError, StoreError
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord, study_names
from testing.counting_store import CountingStore
from testing.study_fixtures import (
    INPUTS,
    PROVENANCE,
    TRAIN_DATA,
    begin,
    best_checkpoint,
    epochs_kept,
    finish,
    history_of,
    new_record,
    propose,
    publish,
    run_trial,
    split_score,
    study_config,
    train_epochs,
    write_score,
)
from vitaclip.errors import InputError


def test_what_was_written_is_read(record: StudyRecord, tmp_path: Path) -> None:
    trial = propose(record, 1)
    result = run_trial(record, 0, tmp_path / "c", 0.1, 0.3, 0.2)
    again = StudyRecord(record.store, "depth")
    assert again.info.config == study_config()
    assert [t.number for t in again.trials()] == [0, 1]
    assert again.trials()[1] == trial
    assert again.results() == [result]
    assert study_names(record.store) == ["depth"]


def test_thresholds_are_read_under_the_name_they_had_before(record: StudyRecord) -> None:
    trial = propose(record, 0).model_copy(update={"number": 1, "thresholds": {2: 0.5}})
    record.write_trial(trial)
    key = record.keys.trial(1).info
    written = record.store.read_json(key)
    assert "bar" not in written
    record.store.write_json(key, {**written, "bar": written["thresholds"]})
    with pytest.raises(StoreError, match="bar"):  # both: which one?
        record.trials()
    written["bar"] = written.pop("thresholds")
    record.store.write_json(key, written)
    assert record.trials()[1] == trial


def test_trials_and_results_are_written_once(record: StudyRecord, tmp_path: Path) -> None:
    result = run_trial(record, 0, tmp_path / "c", 0.1)
    before = (tmp_path / "store/depth/trials/0000/result.json").read_bytes()
    record.write_result(result)
    with pytest.raises(KeyExistsError, match=r"trials/0000/result\.json"):
        record.write_result(result.model_copy(update={"values": (0.9,)}))
    assert (tmp_path / "store/depth/trials/0000/result.json").read_bytes() == before


def test_best_and_last_checkpoints_are_kept(record: StudyRecord, tmp_path: Path) -> None:
    trial = propose(record, 0)
    assert record.trial(0).newest_checkpoint is None
    assert best_checkpoint(record, 0) is None
    train_epochs(record, trial, tmp_path / "c", 0.1, 0.5, 0.3, 0.4)
    assert epochs_kept(record, 0) == [2, 4]
    assert (
        record.trial(0).newest_checkpoint == "depth/trials/0000/checkpoints/attempt-0001/epoch-0004"
    )
    assert best_checkpoint(record, 0) == "depth/trials/0000/checkpoints/attempt-0001/epoch-0002"
    assert record.trial(0).history == history_of(0.1, 0.5, 0.3, 0.4)


def test_a_checkpoint_within_an_epoch_is_gone_on_from_until_the_epoch_ends(
    record: StudyRecord, tmp_path: Path
) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "c", 0.1, 0.5, 0.3)
    stopped = tmp_path / "c"
    assert publish_checkpoint(record, 0, 1, stopped, history_of(0.1, 0.5, 0.3), step=7).endswith(
        "3-step-000007"
    )
    assert (
        record.trial(0).newest_checkpoint
        == "depth/trials/0000/checkpoints/attempt-0001/epoch-0003-step-000007"
    )
    assert record.trial(0).history == history_of(0.1, 0.5, 0.3)
    assert epochs_kept(record, 0) == [2]
    assert best_checkpoint(record, 0) == "depth/trials/0000/checkpoints/attempt-0001/epoch-0002"
    publish_checkpoint(record, 0, 1, stopped, history_of(0.1, 0.5, 0.3, 0.4))
    assert (
        record.trial(0).newest_checkpoint == "depth/trials/0000/checkpoints/attempt-0001/epoch-0004"
    )
    propose(record, 1)
    assert publish_checkpoint(record, 1, begin(record, 1), stopped, [], step=2).endswith(
        "attempt-0001/epoch-0000-step-000002"
    )


def test_as_many_of_the_best_are_kept_as_asked_for(tmp_path: Path) -> None:
    record = new_record(LocalStore(tmp_path / "store"), resources={"num_best_checkpoints": 2})
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "c", 0.4, 0.5, 0.5, 0.3, 0.1)
    assert epochs_kept(record, 0) == [2, 3, 5]
    assert best_checkpoint(record, 0) == "depth/trials/0000/checkpoints/attempt-0001/epoch-0002"


def test_a_half_uploaded_checkpoint_is_not_resumed_from(
    record: StudyRecord, tmp_path: Path
) -> None:
    train_epochs(record, propose(record, 0), tmp_path / "c", 0.5, 0.1)
    record.store.delete("depth/trials/0000/checkpoints/attempt-0001/epoch-0002/manifest.json")
    assert (
        record.trial(0).newest_checkpoint == "depth/trials/0000/checkpoints/attempt-0001/epoch-0001"
    )
    assert best_checkpoint(record, 0) == "depth/trials/0000/checkpoints/attempt-0001/epoch-0001"


def test_a_study_goes_on_with_more_trials_but_not_another_question(record: StudyRecord) -> None:
    more = study_config(search={"num_trials": 9}, resources={"num_workers": 2})
    created_at = record.info.created_at
    record.create_or_check(more, {"git_commit": "def456"})
    assert record.info.config == more
    assert (record.info.created_at, record.info.provenance["git_commit"]) == (created_at, "abc123")
    with pytest.raises(InputError, match=r"train\.epochs: 3, found 4"):
        record.create_or_check(study_config(train={"epochs": 4}), {})
    space = study_config().model_dump(mode="json")["search_space"]
    space["optimizer.lr"]["high"] = 1.0
    with pytest.raises(InputError, match=r"search_space\.optimizer\.lr\.high"):
        record.create_or_check(study_config(search_space=space), {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"classes": "d" * 16, "num_classes": 4},
            r"quickstart/train: its classes are others \(3 were recorded, found 4\)",
        ),
        ({"labels": "2" * 16}, "quickstart/train: its clips or labels are others"),
        ({"files": "6" * 16}, "quickstart/train: its files have other sizes or content"),
    ],
)
def test_a_study_goes_on_with_its_own_data_only(
    record: StudyRecord, changes: dict[str, object], expected: str
) -> None:
    other = StudyInputs(data={"quickstart/train": TRAIN_DATA.model_copy(update=changes)})
    with pytest.raises(InputError, match=expected):
        record.create_or_check(study_config(), PROVENANCE, other)
    assert record.info.inputs == INPUTS


def test_a_study_goes_on_with_its_own_backbone_and_may_get_more_data(record: StudyRecord) -> None:
    with pytest.raises(InputError, match="backbone tiny: its weights are others"):
        record.create_or_check(
            study_config(), PROVENANCE, StudyInputs(backbones={"tiny": "1" * 64})
        )
    more = StudyInputs(data={"ucf101/test_1": TRAIN_DATA})
    record.create_or_check(study_config(), PROVENANCE, more)
    assert record.info.inputs == INPUTS.joined(more)


def test_publishing_an_epoch_lists_once(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "store")
    record = new_record(store)
    trial = propose(record, 0)
    attempt = begin(record, 0)
    for tops in ((0.5,), (0.5, 0.1), (0.5, 0.1, 0.2), (0.5, 0.1, 0.2, 0.6)):
        store.forget()
        publish(record, trial, attempt, tmp_path / "c", *tops)
        assert store.num_lists == 1
        assert store.fetched.total() <= 1  # study.json, at first
    assert epochs_kept(record, 0) == [4]


def test_every_attempt_tells_its_code(
    record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = propose(record, 0)
    begin(record, 0)
    other = CodeVersion(git_commit=None, source_sha256="e" * 64)
    monkeypatch.setattr("orchestrator.storage.attempts.code_version", lambda: other)
    train_epochs(record, trial, tmp_path / "c", 0.1)
    assert [attempt.code for attempt in record.trial(0).attempts] == [code_version(), other]


def test_the_source_hash_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "vitaclip").mkdir()
    (tmp_path / "vitaclip/a.py").write_text("one")
    hashes = [source_sha256(tmp_path)]
    for change in (lambda p: p.write_text("two"), lambda p: p.rename(p.with_name("b.py"))):
        change(tmp_path / "vitaclip/a.py")
        hashes.append(source_sha256(tmp_path))
    assert len(set(hashes)) == 3


def test_the_hash_is_of_what_is_measured() -> None:
    assert config_hash(study_config(search={"num_trials": 9})) == config_hash(study_config())
    assert config_hash(study_config(search={"num_trials": 3, "seed": 1})) != config_hash(
        study_config()
    )


def test_an_unknown_study_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'none': not found"):
        _ = StudyRecord(LocalStore(tmp_path), "none").info


def test_a_record_of_another_version_is_named(record: StudyRecord) -> None:
    record.store.write_json("depth/trials/0000/trial.json", {"number": 0})
    with pytest.raises(StoreError, match=r"depth/trials/0000/trial\.json is no TrialInfo"):
        record.trials()


def test_scores_of_trials_and_of_clip(record: StudyRecord, tmp_path: Path) -> None:
    trial = propose(record, 0)
    train_epochs(record, trial, tmp_path / "c", 0.1)
    benchmark = record.info.config.benchmarks[0]
    assert record.scores(0).read(benchmark) is None
    write_score(record, 0, split_score([0, 1, 0, 1], [0, 1, 2, 1]))
    baseline = Baseline.of(trial.train)
    write_score(record, baseline, split_score([0], [1]))
    score = record.scores(0).read(benchmark)
    assert score is not None
    assert score.splits[0].per_class_top1 == {"left": 1.0, "right": 1.0, "up": 0.0}
    assert score.splits[0].confusion.tolist() == [[1, 0, 0], [0, 2, 0], [1, 0, 0]]
    assert score.splits[0].correct == {0: True, 1: True, 2: False, 3: True}
    assert record.scores(0).read_all() == [score]
    assert [s.baseline for s in record.scores(baseline).read_all()] == [baseline]
    other = benchmark.model_copy(update={"split": "val"})
    assert record.scores(0).read(other) is None


def test_a_score_without_its_accuracy_is_refused(record: StudyRecord, tmp_path: Path) -> None:
    train_epochs(record, propose(record, 0), tmp_path / "c", 0.1)
    write_score(record, 0, split_score([0, 1], [0, 1]))
    [key] = record.store.list("depth/trials/0000/scores")
    score = record.store.read_json(key)
    del score["metrics"]["zero_shot/quickstart/top1"]
    record.store.write_json(key, score)
    with pytest.raises(StoreError, match="needed is zero_shot/quickstart/top1"):
        record.scores(0).read_all()


def test_failed_trials_need_no_checkpoint(record: StudyRecord) -> None:
    result = finish(record, propose(record, 0), "failed")
    assert (result.values, result.checkpoint, record.trial(0).history) == (None, None, [])


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([0.1, 0.3, 0.3], "max", 2),
        ([0.1, 0.3, 0.2], "min", 1),
        ([math.nan, 0.3], "max", 2),
        ([0.3, math.nan], "min", 1),
    ],
)
def test_best_epoch(values: list[float], mode: str, expected: int) -> None:
    objective = Objective.model_validate({"metric": "val/top1", "mode": mode})
    assert best_epoch(history_of(*values), objective) == expected


def test_an_objective_that_was_never_reported_is_named() -> None:
    with pytest.raises(InputError, match="'val/f1': found epoch, time/epoch_s, train/loss"):
        best_epoch(history_of(0.1), Objective(metric="val/f1"))
