"""ls, show, compare and sync, as users and scripts call them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator import compare, ls, show, sync
from orchestrator.code_version import code_version
from orchestrator.commands.sweep import lacking_scores
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.reporting.optuna_view import optuna_study
from orchestrator.reporting.study_data import read_study
from orchestrator.search.outcome import outcome_of
from orchestrator.search.study import Study
from orchestrator.storage.later_scores import with_later_scores
from orchestrator.storage.stores.base import StoreError
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import (
    ZERO_SHOT,
    finish,
    history_of,
    new_record,
    propose,
    run_trial,
    split_score,
    study_config,
    train_epochs,
    write_score,
)
from vitaclip.errors import InputError

HMDB51 = {"dataset": "hmdb51", "split": "test_1", "mode": "zero_shot"}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITACLIP_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    record = new_record(LocalStore(tmp_path / "store"))
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6)
    run_trial(record, 1, tmp_path / "c", 0.1, state="pruned")
    finish(record, propose(record, 2), "failed")
    return record


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_ls_shows_studies_and_trials(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ls.main([]) == 0
    assert "val/top1 0.600" in capsys.readouterr().out
    assert ls.main(["--json"]) == 0
    [study] = json_of(capsys)
    assert (study["name"], study["num_finished"], study["best"], study["best_trial"]) == (
        "depth",
        3,
        0.6,
        0,
    )
    assert ls.main(["depth", "--json"]) == 0
    assert [trial["number"] for trial in json_of(capsys)] == [0, 1, 2]
    propose(record, 3)
    assert ls.main(["depth"]) == 0
    assert "not finished: 3" in capsys.readouterr().out


DAMAGES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"number": 7}',
    None,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "place", ["trial.json", "result.json", "scores/zero_shot-quickstart.json", "attempts/0001.json"]
)
def test_one_bad_file_is_named_and_hides_no_other(
    record: StudyRecord, capsys: pytest.CaptureFixture[str], place: str, damage: bytes | None
) -> None:
    path = Path(record.store.uri) / "depth/trials/0000" / place
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert ls.main(["depth"]) == 0
    captured = capsys.readouterr()
    assert "pruned" in captured.out
    assert ls.main([]) == 0
    assert "depth" in capsys.readouterr().out
    assert len(read_study(record).results) >= 2
    if damage is None:
        return
    assert place.startswith("attempts") or place in str(read_study(record).unreadable)
    with pytest.raises(StoreError, match=r"depth/trials/0000/.*; (delete|restore)"):
        _ = (
            record.trials(),
            record.results(),
            record.scores(0).read_all(),
            record.trial(0).attempts,
        )


@pytest.mark.parametrize("value", [None, "2026-01-02T03:04:05Z", 99, 1.5, True])
def test_a_point_outside_the_space_is_left_out_of_a_report(
    record: StudyRecord, value: object
) -> None:
    path = Path(record.store.uri) / "depth/trials/0000/result.json"
    content = json.loads(path.read_text())
    content["params"]["prompts.depth"] = value
    if value is None:
        del content["params"]["prompts.depth"]
    path.write_text(json.dumps(content))
    data = read_study(record)
    assert [result.number for result in data.results] == [1, 2]
    assert "depth/trials/0000/result.json: params" in str(data.unreadable)
    assert len(optuna_study(data).trials) == 2


@pytest.mark.parametrize("value", ["2026-01-02T03:04:05Z", 99])
def test_a_sweep_goes_on_from_points_of_its_space_only(record: StudyRecord, value: object) -> None:
    path = Path(record.store.uri) / "depth/trials/0000/trial.json"
    content = json.loads(path.read_text())
    content["params"]["prompts.depth"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError,
        match=r"trials/0000/trial\.json\.prompts\.depth: found .*outside the search space",
    ):
        Study(record.info.config, record)


def test_a_bad_study_hides_no_other(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_record(LocalStore(tmp_path / "store"), name="other")
    (tmp_path / "store/depth/study.json").write_text("{")
    assert ls.main(["--json"]) == 0
    captured = capsys.readouterr()
    assert [study["name"] for study in json.loads(captured.out)] == ["other"]
    assert "left out: " in captured.err
    assert "depth/study.json" in captured.err
    assert show.main(["depth"]) == 1
    assert "depth/study.json is no StudyInfo" in capsys.readouterr().err


@pytest.mark.parametrize("entry", [{"val/top1": 0.3}, {"epoch": 0.5}, {"epoch": -1}])
def test_a_history_without_epochs_is_named(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: dict[str, float]
) -> None:
    train_epochs(record, propose(record, 3), tmp_path / "c", 0.3)
    folder = Path(record.store.uri) / "depth/trials"
    [running] = folder.glob("0003/checkpoints/*/*/checkpoint.json")
    for path, keys in ((folder / "0000/result.json", ()), (running, ("progress",))):
        content = json.loads(path.read_text())
        inner = content
        for key in keys:
            inner = inner[key]
        inner["history"] = [entry]
        path.write_text(json.dumps(content))
    for number, place in ((0, "0000/result.json"), (3, "epoch-0001/checkpoint.json")):
        assert show.main([f"depth/{number}"]) == 1
        message = capsys.readouterr().err
        assert place in message
        assert "names no epoch" in message
        assert "delete" in message


def test_a_running_trial_without_times_has_an_outcome(record: StudyRecord, tmp_path: Path) -> None:
    train_epochs(record, propose(record, 3), tmp_path / "c", 0.3, 0.4, 0.5)
    for path in (Path(record.store.uri) / "depth/trials/0003").rglob("checkpoint.json"):
        path.write_text(path.read_text().replace("time/epoch_s", "x"))
    assert Study(record.info.config, record).outcomes[3].state == "complete"


def test_a_checkpoint_without_its_description_is_named(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_epochs(record, propose(record, 3), tmp_path / "c", 0.3)
    [path] = (Path(record.store.uri) / "depth/trials/0003").rglob("checkpoint.json")
    path.unlink()
    assert show.main(["depth/3"]) == 1
    assert re.search(
        r"epoch-0001 has no checkpoint\.json; delete this checkpoint", capsys.readouterr().err
    )
    with pytest.raises(StoreError, match=r"has no checkpoint\.json"):
        Study(record.info.config, record)


def test_a_study_with_a_hole_is_refused(record: StudyRecord) -> None:
    shutil.rmtree(Path(record.store.uri) / "depth/trials/0001")
    with pytest.raises(InputError, match=r"trials/0001/trial\.json is missing .*restore it"):
        Study(record.info.config, record)
    assert ls.main(["depth"]) == 0


def test_trials_of_other_code_are_told_apart(
    record: StudyRecord,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    first, second = record.results()[0], propose(record, 3)
    train_epochs(record, second, tmp_path / "c", 0.3)
    result = finish(record, second, "complete", 0.3, write=False)
    record.write_result(result.model_copy(update={"code": ("abc (sources 1)", "def (sources 2)")}))
    assert ls.main(["depth"]) == 0
    output = capsys.readouterr().out
    assert "code abc (sources 1), then def (sources 2): trials 3" in output
    assert first.code == ()
    assert show.main(["depth/3", "--json"]) == 0
    assert code_version().name in json_of(capsys)["attempts"]["1"]


def test_a_benchmark_that_came_later_is_asked_for_and_then_shown(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    later = {"dataset": "ucf101", "split": ["test_1"], "mode": "zero_shot"}
    record.create_or_check(study_config(benchmarks=[ZERO_SHOT, later]), {})
    config, results = record.info.config, record.results()
    assert lacking_scores(config, results) == ["zero_shot/ucf101 (trials 0, 1)"]
    for number in (0, 1):
        write_score(record, number, split_score([0, 0], [0, 1], "test_1"), config.benchmarks[1])
    assert lacking_scores(config, with_later_scores(record, results)) == []
    assert record.results() == results
    assert ls.main(["depth", "--json"]) == 0
    trials = json_of(capsys)
    assert [trial["benchmarks"].get("zero_shot/ucf101/top1") for trial in trials] == [
        0.5,
        0.5,
        None,
    ]


def test_a_benchmark_whose_protocol_changed_is_asked_for_again(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = record.results()
    with monkeypatch.context() as patch:
        patch.delattr(StudyRecord, "scores")  # not read while nothing has changed
        assert with_later_scores(record, results) == results
    of_older_version = [result.model_copy(update={"protocols": ()}) for result in results]
    assert with_later_scores(record, of_older_version) == results

    record.create_or_check(
        study_config(benchmarks=[ZERO_SHOT | {"views": {"num_temporal_views": 4}}]), {}
    )
    config = record.info.config
    stale = with_later_scores(record, results)
    assert lacking_scores(config, stale) == ["zero_shot/quickstart (trials 0, 1)"]
    assert "zero_shot/quickstart/top1" not in stale[0].benchmarks
    write_score(record, 0, split_score([0, 0], [0, 1]), config.benchmarks[0])
    again = with_later_scores(record, results)
    assert lacking_scores(config, again) == ["zero_shot/quickstart (trials 1)"]
    assert again[0].benchmarks["zero_shot/quickstart/top1"] == 0.5


def test_show_shows_a_study_a_finished_and_a_running_trial(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show.main(["depth"]) == 0
    assert "abc123" in capsys.readouterr().out
    assert show.main(["depth/0"]) == 0
    out = capsys.readouterr().out
    assert "zero_shot/quickstart/top1" in out
    train_epochs(record, propose(record, 3), tmp_path / "c", 0.3)
    assert show.main(["depth/3", "--json"]) == 0
    trial = json_of(capsys)
    assert (trial["state"], len(trial["history"])) == ("not finished", 1)


def test_compare_calls_a_difference_one_only_where_it_is(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [0, 1, 2] * 10
    write_score(record, 0, split_score(labels, labels))
    write_score(record, 1, split_score([0] * 30, labels))
    assert compare.main(["depth/0", "depth/1", "--json"]) == 0
    content = json_of(capsys)
    assert content["config"]["prompts.depth"] == [0, 1]
    [pair] = content["benchmarks"]
    assert (pair["only_first"], pair["only_second"], pair["verdict"]) == (20, 0, "first is better")
    assert pair["p_value"] == pytest.approx(2 / 2**20)
    write_score(record, 1, split_score([0, *labels[1:-1], 0], labels))
    assert compare.main(["depth/0", "depth/1"]) == 0
    assert "no difference shown" in capsys.readouterr().out


def test_published_figures_stand_beside_what_was_scored(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["depth/0", "depth/1"], ["depth/0"]):
        main = compare.main if len(words) == 2 else show.main
        assert main(words) == 0
        assert "as published" not in capsys.readouterr().out
        for number in (0, 1):
            score = split_score([0, 0], [0, 1], "test_1")
            write_score(record, number, score, ZeroShot.model_validate(HMDB51))
        assert main(words) == 0
        table = capsys.readouterr().out.partition("as published, not measured here")[2]
        [line] = [line for line in table.splitlines() if "Vita-CLIP" in line]
        assert "0.486 ± 0.006" in line
        assert "8/32 frames" in line
        for number in (0, 1):
            shutil.rmtree(Path(record.store.uri) / f"depth/trials/000{number}/scores")


def test_clips_that_differ_are_not_paired(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    write_score(record, 1, split_score([0, 1], [0, 1]))
    assert compare.main(["depth/0", "depth/1", "--json"]) == 0
    assert json_of(capsys)["benchmarks"] == []


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (ls.main, ["dept"], "'dept': not found"),
        (show.main, ["depth/9"], "no trial 9"),
        (show.main, ["depth/x"], "STUDY/NUMBER"),
        (compare.main, ["depth", "depth/1"], "STUDY/NUMBER"),
    ],
)
def test_bad_references_end_with_code_2(
    record: StudyRecord,
    capsys: pytest.CaptureFixture[str],
    main: object,
    arguments: list[str],
    message: str,
) -> None:
    assert main(arguments) == 2  # type: ignore[operator]
    assert message in capsys.readouterr().err


def test_sync_tells_when_mlflow_is_away(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert sync.main(["depth"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_one_line_says_why_a_trial_was_pruned(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = study_config(search={"num_trials": 3, "scheduler": {"name": "asha"}})
    trial = propose(record, 3).model_copy(update={"thresholds": {1: 0.1, 2: 0.5}})
    outcome = outcome_of(trial, history_of(0.3, 0.2), config)
    assert outcome is not None
    reason = "asha: the best val/top1 up to epoch 2 was 0.3, the threshold there is 0.5"
    assert (outcome.state, outcome.reason) == ("pruned", reason)

    result = run_trial(record, 4, tmp_path / "c", 0.1, state="pruned")
    assert show.main(["depth/4"]) == 0
    assert capsys.readouterr().out.startswith(f"depth/4 pruned: {result.reason}\n")
