"""``requirements.lock``: complete, with a hash for every file, and installed by commands that
insist on them.
"""

from __future__ import annotations

import functools
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testing.paths import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def entries(lock: str = LOCK) -> Iterator[tuple[Requirement, list[str]]]:
    """Each pinned requirement and its hashes."""
    text = "".join(
        line for line in lock.splitlines(keepends=True) if not line.lstrip().startswith("#")
    )
    for entry in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = entry.split(" --hash=")
        yield Requirement(requirement), [digest.strip() for digest in hashes]


@functools.cache
def pins() -> dict[str, str]:
    """Name -> version, of what this platform installs."""
    found: dict[str, str] = {}
    for requirement, _ in entries():
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            assert canonicalize_name(requirement.name) not in found, (
                f"{requirement.name} is pinned twice"
            )
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def missing(requirements: Iterable[str]) -> list[str]:
    """Those, of this platform's and of no extra, that the lock does not fulfil."""
    locked, found = pins(), []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{text}: locked is {version}")
    return found


def test_every_pin_has_hashes() -> None:
    assert len(list(entries())) > 200
    for requirement, hashes in entries():
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


def test_the_lock_names_no_registry() -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", LOCK)


def test_the_lock_fulfils_all_that_the_project_asks_for() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = content["project"]
    extras = project["optional-dependencies"].values()
    parts = (project["dependencies"], content["build-system"]["requires"], *extras)
    asked = [text for text in itertools.chain(*parts) if not text.startswith(project["name"])]
    assert missing(asked) == []


def test_the_lock_holds_all_that_locked_packages_ask_for() -> None:
    installed: dict[str, metadata.Distribution] = {
        canonicalize_name(package.name): package for package in metadata.distributions()
    }
    for name, version in pins().items():
        # `make versions` installs others, which ask for other things.
        if name in installed and installed[name].version == version:
            assert missing(installed[name].requires or []) == [], name


def install_commands() -> list[list[str]]:
    """The command lines with which the Makefile makes an environment from nothing, and the
    image's.
    """
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", ".venv/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    image = (ROOT / "infra/docker/Dockerfile").read_text()
    lines = [
        *re.split(r"\n|\|\|", made.stdout.replace("\\\n", " ")),
        *re.findall(r"^RUN (.*)$", image, re.MULTILINE),
    ]
    return [shlex.split(line) for line in lines if "pip install" in line]


def test_nothing_is_installed_whose_hash_is_not_locked() -> None:
    commands = install_commands()
    fetching = [command for command in commands if "--no-index" not in command]
    assert len(commands) == 5
    assert len(fetching) == 4
    for command in fetching:
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
        assert Path(command[-1]).name in ("requirements.lock", "uv.lock")
        assert command[-2] == "-r"


def test_what_pip_brings_first_is_uv_as_it_is_locked(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", f"VENV={tmp_path}", f"{tmp_path}/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in made.stdout.splitlines() if line.startswith("sed ")]
    subprocess.run(line, shell=True, cwd=ROOT, check=True)
    [found] = entries((tmp_path / "uv.lock").read_text())
    assert [found] == [entry for entry in entries() if entry[0].name == "uv"]


@pytest.mark.parametrize(
    ("hashes", "complaint"),
    [
        (f" --hash=sha256:{'0' * 64}", "do not match the hashes|hash mismatch"),
        ("", "hashes are required|all requirements must have a hash"),
    ],
    ids=["another file", "no hash"],
)
@pytest.mark.parametrize("installer", ["uv", "python"])
def test_the_makefiles_command_refuses_what_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str, hashes: str, complaint: str
) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    (tmp_path / "requirements.lock").write_text(f"tiny==1.0{hashes}\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    [command] = [
        command
        for command in install_commands()
        if Path(command[0]).name == installer and command[-1] == "requirements.lock"
    ]
    program = Path(sys.executable).with_name(installer)
    words = [sys.executable if word.endswith("/python") else word for word in command[1:]]
    done = subprocess.run(
        [program, *words, "--target", tmp_path / "installed"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert re.search(complaint, done.stderr, re.IGNORECASE)
    assert not list(tmp_path.glob("installed/tiny*"))
