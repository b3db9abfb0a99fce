"""The wheel, in an environment of its own: it holds all that a first sweep needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.paths import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "experiments", "orchestrator", "vitaclip")
SMALL = ("search.num_trials=1", "train.epochs=1", "train.data.limit=64")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; all other packages are those of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source, wheels, environment = folder / "source", folder / "wheels", folder / "environment"
    source.mkdir()
    for name in SOURCES:  # not the folders that earlier builds have left beside them
        run("cp", "-r", ROOT / name, source, cwd=folder)
    offline = ("--no-index", "--no-deps")
    run(*PIP, "wheel", *offline, "--no-build-isolation", "-w", wheels, source, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin/python"
    (wheel,) = wheels.iterdir()
    run(*PIP, "--python", python, "install", *offline, wheel, cwd=folder)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return environment


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this environment but its packages."""
    for name in ("VITACLIP_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    # short: it holds Ray's sockets
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed; raises AssertionError if it failed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_it_sweeps_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    vitaclip = environment / "bin/vitaclip"
    run(vitaclip, "experiments", "copy", "prompt_depth", cwd=tmp_path)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    run(vitaclip, "sweep", "prompt_depth.yaml", *settings, cwd=tmp_path)
    [trial] = json.loads(run(vitaclip, "ls", "prompt_depth", "--json", cwd=tmp_path))
    assert trial["state"] == "complete"
    assert {"supervised/quickstart/top1", "zero_shot/quickstart/top1"} <= trial["benchmarks"].keys()


def test_it_is_what_is_imported_and_it_is_typed(environment: Path, tmp_path: Path) -> None:
    code = "import orchestrator, vitaclip; print(orchestrator.__file__, vitaclip.__file__)"
    for path in run(environment / "bin/python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(environment)
        assert Path(path).with_name("py.typed").is_file()


def test_its_command_says_the_projects_version(environment: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shown = run(environment / "bin/vitaclip", "--version", cwd=tmp_path)
    assert shown == f"vitaclip {project['version']}\n"


def test_it_brings_the_figures_that_papers_print(environment: Path, tmp_path: Path) -> None:
    words = ("published", "zero_shot/hmdb51", "--json")
    found = json.loads(run(environment / "bin/vitaclip", *words, cwd=tmp_path))
    assert "Vita-CLIP" in {figure["method"] for figure in found}


def test_its_metadata_tells_which_extra_is_missing(environment: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['plotly'] = None; from orchestrator import cli; cli.main()"
    command = (environment / "bin/python", "-c", code, "report", "depth")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "pip install 'vitaclip-orchestrator[report]'" in done.stderr
