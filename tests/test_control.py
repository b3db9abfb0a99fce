"""The command that changes a running study from another terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.control import main
from orchestrator.storage.records import Control
from orchestrator.storage.store import LocalStore
from orchestrator.storage.study_record import StudyRecord
from tests.study_fixtures import new_record, propose


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path))
    return new_record(LocalStore(tmp_path))


def test_it_pauses_resumes_and_adds(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth", "--pause"]) == 0
    assert record.control() == Control(paused=True)
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
    assert record.control() == Control(num_trials=9, points=({"prompts.depth": 2}, {"prompts.depth": 1}))
    assert "depth: not paused, 9 trials, 2 extra points" in capsys.readouterr().out


def test_without_changes_it_only_tells(record: StudyRecord, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["depth"]) == 0
    assert "depth: not paused, 3 trials" in capsys.readouterr().out
    assert not any(key.endswith("control.json") for key in record.store.list(""))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--point", "{prompts.dept: 2}"], "did you mean 'prompts.depth'"),
        (["--point", "{prompts.depth: 99}"], "outside the search space"),
        (["--point", "7"], "allowed is a mapping"),
        (["--num-trials", "0"], "found 0, allowed are 1"),
    ],
)
def test_what_cannot_be_is_refused(
    record: StudyRecord, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    propose(record, 0)
    assert main(["depth", *arguments]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
