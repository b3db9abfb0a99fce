"""Names, questions and errors out of a study's files: every command shows them, none obeys, and
MLflow takes them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param_name, _validate_tag_name

from orchestrator import compare, ls, report, show, sync
from orchestrator.storage.stores.local import LocalStore
from orchestrator.tracking.mlflow.client import allowed_name
from testing.study_fixtures import new_record, run_trial
from tests.unit.vitaclip.test_terminal import HOSTILE


def test_every_command_shows_what_is_on_record(
    mlflow_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setenv("COLUMNS", "400")
    space = {"text.init": {"type": "categorical", "choices": [HOSTILE, "b"]}}
    resources = {"custom_per_worker": {HOSTILE: 1, "gpu[0]": 1}}
    changes = {
        "question": HOSTILE,
        "hypothesis": HOSTILE,
        "resources": resources,
        "search_space": space,
    }
    record = new_record(LocalStore(tmp_path / "store"), **changes)
    first = run_trial(record, 0, tmp_path / "c", 0.2, 0.6, write=False)
    second = run_trial(record, 1, tmp_path / "c", 0.1, state="failed", write=False)
    hostile = {"reason": HOSTILE, "params": {"text.init": HOSTILE}, "code": (HOSTILE,)}
    record.write_result(first.model_copy(update={"params": {"text.init": "b"}}))
    record.write_result(second.model_copy(update=hostile))
    commands = [
        (ls.main, []),
        (ls.main, ["depth"]),
        (ls.main, ["depth", "--json"]),
        (show.main, ["depth"]),
        (show.main, ["depth/1"]),
        (show.main, ["depth/1", "--json"]),
        (compare.main, ["depth/0", "depth/1"]),
        (report.main, ["depth"]),
        (sync.main, ["depth"]),
        (show.main, [HOSTILE]),
    ]
    for command, arguments in commands:
        command(arguments)
        output = "".join(capsys.readouterr())
        assert not set(output) & set("\x1b\x07\x08\u202e\x9b"), (command, output)
        assert "Traceback" not in output
        assert "[x]" in output or arguments in (["depth/0", "depth/1"], ["depth"])


@given(st.text(min_size=1, max_size=400))
def test_mlflow_takes_every_name_that_is_mapped(name: str) -> None:
    _validate_param_name(allowed_name(name))
    _validate_tag_name(allowed_name(name))
    assert len(allowed_name(name)) <= 250


def test_usual_names_stay_and_different_ones_stay_different() -> None:
    custom = "study.resources.custom_per_worker.accelerator_type:H100"
    for name in ("search.num_trials", "zero_shot/hmdb51/top1", custom):
        assert allowed_name(name) == name
    assert allowed_name("gpu[0]") != allowed_name("gpu[1]")
    assert len({allowed_name("x" * 300), allowed_name("x" * 299)}) == 2
