"""The command that changes a running study from another terminal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import ls, show
from orchestrator.commands.dry_run import describe
from orchestrator.control import main
from orchestrator.search.study import Study
from orchestrator.settings import Settings
from orchestrator.storage.records.control import Control, ControlChange
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import PROVENANCE, new_record, propose, run_trial, study_config


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path))
    return new_record(LocalStore(tmp_path))


def test_it_pauses_resumes_and_adds(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["depth", "--pause"]) == 0
    assert record.control() == Control(num_trials=3, paused=True)
    arguments = [
        "--resume",
        "--num-trials",
        "9",
        "--point",
        "{prompts.depth: 2}",
        "--point",
        "{prompts.depth: 1}",
    ]
    assert main(["depth", *arguments]) == 0
    assert record.control() == Control(
        num_trials=9, points=({"prompts.depth": 2}, {"prompts.depth": 1})
    )
    assert "depth: not paused, 9 trials, 2 extra points" in capsys.readouterr().out


def test_without_changes_it_only_tells(
    record: StudyRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["depth"]) == 0
    assert "depth: not paused, 3 trials" in capsys.readouterr().out
    assert not record.store.list("depth/control")


def test_changes_made_at_once_all_count(record: StudyRecord) -> None:
    points = [{"prompts.depth": depth} for depth in range(8)]
    with ThreadPoolExecutor(8) as terminals:
        list(terminals.map(lambda point: record.add_change(ControlChange(points=(point,))), points))
    assert sorted(record.control().points, key=str) == points
    record.add_change(ControlChange(paused=True))
    record.add_change(ControlChange(num_trials=7))
    assert (record.control().paused, record.control().num_trials) == (True, 7)


def test_a_number_in_the_file_that_is_newer_than_the_command_counts(record: StudyRecord) -> None:
    record.add_change(ControlChange(num_trials=9, paused=True))
    record.create_or_check(study_config(), PROVENANCE)
    assert record.control() == Control(num_trials=9, paused=True)
    record.create_or_check(study_config(search={"num_trials": 5}), PROVENANCE)
    assert record.control() == Control(num_trials=5, paused=True)


def test_every_display_tells_the_number_that_was_asked_for(
    record: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_trial(record, 0, tmp_path / "checkpoint", 0.5)
    assert main(["depth", "--num-trials", "12"]) == 0
    assert ls.main([]) == 0
    assert show.main(["depth"]) == 0
    describe(record.info.config, Settings(), Console())
    output = capsys.readouterr().out
    for text in ("1/12", "num_trials │ 12", "12, 1 of them finished"):
        assert text in " ".join(output.split()), text
    assert Study(record.info.config, record).num_trials == 12


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--point", "{prompts.dept: 2}"], "did you mean 'prompts.depth'"),
        (["--point", "{prompts.depth: 99}"], "outside the search space"),
        (["--point", "7"], "allowed is a mapping"),
        (["--num-trials", "0"], "found 0, allowed are 1 (already proposed) or more"),
    ],
)
def test_what_cannot_be_is_refused(
    record: StudyRecord, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    propose(record, 0)
    assert main(["depth", *arguments]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
