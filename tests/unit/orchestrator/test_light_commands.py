"""What only reads the record stays light: its process imports no torch, Ray or MLflow."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import storage
from orchestrator.storage.stores.local import LocalStore
from testing.paths import ROOT
from testing.study_fixtures import new_record, run_trial

HEAVY = {"torch", "ray", "mlflow", "wandb", "boto3", "matplotlib", "plotly", "pandas"}
RECORD = [
    module.name for module in pkgutil.walk_packages(storage.__path__, "orchestrator.storage.")
]
COMMANDS = ["ls", "show", "control", "compare", "published", "paper_table", "sweep", "dry_run"]
# Its page is plotly's and matplotlib's; frames of videos, and a tracking service, come when asked.
DRAWING = ["orchestrator.commands.report", "orchestrator.commands.serve"]


def run(code: str, allowed: set[str], *arguments: str, **environment: str) -> str:
    """Runs Python code in a fresh process; returns what it printed."""
    heavy = HEAVY - allowed
    check = f"\nimport sys; found = sys.modules.keys() & {heavy}; assert not found, found"
    done = subprocess.run(
        [sys.executable, "-c", code + check, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_record_is_imported_without_any_of_them() -> None:
    assert "orchestrator.storage.stores.s3" in RECORD
    run("import " + ", ".join(RECORD), set())


def test_commands_are_imported_without_any_of_them() -> None:
    run("import " + ", ".join(f"orchestrator.commands.{name}" for name in COMMANDS), set())


def test_event_files_are_written_with_what_tensorboard_imports() -> None:
    run("import orchestrator.commands.event_files", {"boto3"})


@pytest.mark.parametrize("module", DRAWING)
def test_pages_are_imported_with_what_draws(module: str) -> None:
    run(f"import {module}", {"matplotlib", "plotly", "pandas"})


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["ls"], "depth"),
        (["ls", "depth"], "0.700"),
        (["show", "depth/0"], "complete"),
        (["control", "depth", "--num-trials", "9"], "9 trials"),
        (["compare", "depth/0", "depth/1"], "val/top1"),
        (["sweep", str(ROOT / "experiments/prompt_depth.yaml"), "--dry-run"], "dry run"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_record_is_read_without_any_of_them(words: list[str], shown: str, tmp_path: Path) -> None:
    record = new_record(LocalStore(tmp_path / "store"))
    for number in range(2):
        run_trial(record, number, tmp_path / "c", 0.5, 0.7)
    code = "import sys; from orchestrator import cli; assert cli.main(sys.argv[1:]) == 0"
    output = run(code, set(), *words, VITACLIP_STORE=record.store.uri, COLUMNS="200")
    assert shown in output
