"""``vitaclip experiments``: what ships, and what becomes of a copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.yaml_file import load_study
from testing.paths import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_of_the_repositorys_ship(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    files = sorted((ROOT / "experiments").rglob("*.yaml"))
    assert {f"{experiment['name']}.yaml" for experiment in listed} == {
        path.relative_to(ROOT / "experiments").as_posix() for path in files
    }
    assert all(experiment["about"] for experiment in listed)
    assert cli.main(["experiments"]) == 0
    assert "How deep must prompts go" in capsys.readouterr().out


def test_a_copy_can_be_swept(folder: Path) -> None:
    assert cli.main(["experiments", "copy", "prompt_depth"]) == 0
    assert load_study(folder / "prompt_depth.yaml").name == "prompt_depth"
    assert "$schema=study.schema.json" in (folder / "prompt_depth.yaml").read_text()
    assert (folder / "study.schema.json").is_file()
    assert cli.main(["experiments", "copy", "overlays/paper_scale", "mine/scale.yaml"]) == 0
    study = load_study(folder / "prompt_depth.yaml", [folder / "mine/scale.yaml"])
    assert study.train.data.dataset == "kinetics400"


def test_nothing_is_overwritten_or_guessed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "frames.yaml").write_text("mine")
    for words, message in (
        (["frames"], "frames.yaml exists already"),
        (["frame"], "did you mean 'frames'"),
        (["../pyproject"], "is no experiment"),
    ):
        assert cli.main(["experiments", "copy", *words]) == 2
        assert message in capsys.readouterr().err
    assert (folder / "frames.yaml").read_text() == "mine"
