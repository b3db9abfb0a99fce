"""The command ``vitaclip``, and its older sisters ``python -m orchestrator.sweep`` and others."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command

from orchestrator import (
    certify,
    cli,
    compare,
    control,
    evaluate,
    ls,
    published,
    report,
    serve,
    show,
    sweep,
    sync,
)
from testing.paths import ROOT
from vitaclip import __main__ as library

MODULES = [
    certify,
    compare,
    control,
    evaluate,
    ls,
    published,
    report,
    serve,
    show,
    sweep,
    sync,
    library,
]
COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]
HEAVY = ("torch", "ray", "mlflow", "optuna", "boto3", "scipy", "matplotlib", "plotly", "av")
HELP = [
    ["--help"],
    *([name, "--help"] for name in COMMANDS),
    *(["data", name, "--help"] for name in ("check", "prepare", "show")),
    ["experiments", "copy", "--help"],
]
QUICK = f"""
import sys
from orchestrator import cli
def check(*words):
    assert cli.main([*words]) == 0, words
    found = sys.modules.keys() & {set(HEAVY)}
    assert not found, (words, found)
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


def test_there_is_one_command_for_all() -> None:
    assert [*COMMANDS] == [
        *("sweep", "ls", "show", "compare", "evaluate", "certify", "published", "report"),
        *("serve", "replay", "control", "sync", "schema", "experiments"),
        *("predict", "import-checkpoint", "export-checkpoint", "export-backbone"),
        *("convert-backbone", "data"),
    ]


def test_help_names_each_command_with_a_whole_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == 0
    output = capsys.readouterr().out
    assert "..." not in output.partition("Commands:")[2]
    assert cli.main(["-h"]) == 0
    assert capsys.readouterr().out == output


def test_help_needs_nothing_heavy() -> None:
    done = run("-c", f"{QUICK}for words in {HELP}: check(*words)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: vitaclip") == len(HELP)


def test_the_version_is_that_of_the_package_and_needs_nothing_heavy() -> None:
    done = run("-c", f"{QUICK}check('--version')")
    assert done.stdout == f"vitaclip {version('vitaclip-orchestrator')}\n", done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_mistakes_in_the_command_line_are_told_in_one_line(
    module: object, capsys: pytest.CaptureFixture[str]
) -> None:
    main = module.main  # type: ignore[attr-defined]
    assert main(["--helf"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: No such option: --helf")
    assert "--help` tells what is allowed" in error
    assert error.count("\n") == 1
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: python -m {module.__name__.split('._')[0]}")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swep"], "No such command 'swep'"),
        (["sweep"], "Missing argument 'FILE.yaml'"),
        (["compare", "a/1"], "Missing argument 'STUDY/NUMBER'"),
        (["control", "depth", "--num-trials", "many"], "Invalid value for '--num-trials'"),
        (["control", "depth", "--pause", "--resume"], "--pause and --resume, allowed is one"),
        (["report", "depth", "--latex", "--csv"], "--latex and --csv, allowed is one"),
        (["report", "depth", "--csv", "--tensorboard"], "--csv and --tensorboard, allowed is one"),
        (["evaluate", "depth", "--on"], "Option '--on' requires an argument"),
        (["evaluate", "depth", "--on", "x", "--split", "y", "--mode", "z"], "'z' is not one of"),
        (["evaluate", "depth", "--views", "4"], "views: found '4', allowed is TEMPORALxSPATIAL"),
        (["predict", "folder"], "Missing argument 'VIDEO'"),
        (["data", "prepare", "mine"], "Missing option '--out'"),
        (["show", "\x1b[2J/b"], "\\x1b[2J/b"),
        (["ls", "depth", "--\x1b[2J"], "No such option: --\\x1b[2J"),
    ],
)
def test_what_cannot_be_used_ends_with_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_some_options_take_several_words_each(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    monkeypatch.setattr(
        "orchestrator.commands.evaluate.evaluate_target",
        lambda *arguments, **options: scored.append((arguments, options)),
    )
    templates = ["--templates", "a {}.", "the {}"]
    at_once = ["depth", "--on", "a", "b", "--split", "c", *templates, "--views", "4x3", "--json"]
    repeated = ["--on", "a", "--on", "b", "--split=c", "depth", "--views=4x3", *templates, "--json"]
    for arguments in (at_once, repeated):
        assert evaluate.main(arguments) == 0
    [((target, named), options), second] = scored
    assert second == scored[0]
    assert (target, options) == ("depth", {"as_json": True})
    assert (named.datasets, named.splits, named.templates) == (
        ["a", "b"],
        ["c"],
        ["a {}.", "the {}"],
    )
    assert (named.mode, named.views.num_temporal_views) == ("zero_shot", 4)


def test_a_traceback_is_shown_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([str(tmp_path / "none.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert sweep.main([str(tmp_path / "none.yaml"), "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_sweep_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.commands.sweep.sweep", interrupted)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert sweep.main([str(ROOT / "experiments/prompt_depth.yaml")]) == 130
    assert "interrupted; the same command goes on from here" in capsys.readouterr().out


def test_a_shell_completes_commands_and_options() -> None:
    words = {"sw": "sweep", "sweep --dr": "--dry-run", "data pre": "prepare"}
    for typed, completed in words.items():
        done = run(
            *("-m", "orchestrator.cli"),
            _VITACLIP_COMPLETE="complete_bash",
            COMP_WORDS=f"vitaclip {typed}",
            COMP_CWORD=str(len(typed.split())),
        )
        assert done.stdout.split() == [completed], done.stderr
