"""``vitaclip schema``: editors allow what a sweep allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import cli
from testing.paths import ROOT

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.fixture
def schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["schema"]) == 0
    path = tmp_path / "study.schema.json"
    path.write_text(capsys.readouterr().out)
    return path


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "check_jsonschema", *arguments)
    return subprocess.run(command, capture_output=True, text=True)


def test_it_is_a_schema_by_which_every_experiment_is_valid(schema: Path) -> None:
    assert check("--check-metaschema", schema).returncode == 0
    done = check("--schemafile", schema, *EXPERIMENTS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("epochs: 5", "epoch: 5", "'epoch' was unexpected"),
        ("sampling: uniform", "sampling: uniformly", "'uniformly' is not one of"),
        ("prompts.depth:", "prompts.dept:", "'prompts.dept' is not one of"),
        ("num_trials: 8", "num_trials: 0", "0 is less than the minimum of 1"),
    ],
)
def test_a_mistake_is_marked(schema: Path, tmp_path: Path, old: str, new: str, found: str) -> None:
    text = (ROOT / "experiments/prompt_depth.yaml").read_text()
    (tmp_path / "study.yaml").write_text(text.replace(old, new, 1))
    done = check("--schemafile", schema, tmp_path / "study.yaml")
    assert done.returncode == 1
    assert found in done.stdout


def test_every_experiment_names_the_schema_beside_it() -> None:
    for path in EXPERIMENTS:
        assert "# yaml-language-server: $schema=study.schema.json\n" in path.read_text(), path
    assert (ROOT / "experiments/study.schema.json").is_file()
