"""The fuzzer itself: it tells what fails, and how; its cases repeat; and a few cases of each target
pass.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.drivers.fuzz import __main__ as fuzz
from tests.drivers.fuzz.targets import TARGETS, Target
from vitaclip.errors import InputError

FEW_CASES = 3


class Sound(Target):
    """One file of JSON, which is read in a way of its own."""

    name = "sound"

    def __init__(self, read: Callable[[], object]) -> None:
        self._read = read

    def prepare(self, folder: Path) -> None:
        (folder / "a.json").write_text("{}")

    def damage(self, folder: Path, rng: random.Random) -> None:
        (folder / "a.json").write_text(json.dumps(rng.random()))

    def read(self, folder: Path) -> list[Callable[[], object]]:
        return [self._read]


def refuse() -> None:
    raise InputError("no")


def break_down() -> None:
    raise ValueError("a traceback")


def never_end() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (lambda: None, "passed"),
        (refuse, "passed"),
        (break_down, "ValueError: a traceback"),
        (never_end, "computed for over 1 s"),
        (partial(time.sleep, 60), "was not done after 2 s"),
        (partial(bytes, 2 * fuzz.LIMIT_BYTES), "MemoryError"),
        (os.abort, "died of signal 6"),
    ],
)
def test_what_becomes_of_a_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], object], end: str
) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 1)
    monkeypatch.setattr(fuzz, "WAIT_LIMIT_S", 2 if "not done" in end else 300)
    figures = fuzz.fuzz(Sound(read), 0, 1e-9, tmp_path)
    assert figures.ends == {end: 1}
    assert [path.name for path in tmp_path.iterdir()] == ([] if end == "passed" else ["sound-0-0"])


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_cases_repeat(tmp_path: Path, target: Target) -> None:
    sound = tmp_path / "sound"
    sound.mkdir()
    target.prepare(sound)
    for number in range(FEW_CASES):
        contents = []
        for name in ("first", "again"):
            folder = tmp_path / f"{name}{number}"
            fuzz.make_case(target, sound, folder, 0, number)
            files = (path for path in folder.rglob("*") if path.is_file())
            contents.append({path.relative_to(folder): path.read_bytes() for path in files})
        assert contents[0] == contents[1]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_case_of_each_target_passes(tmp_path: Path, target: Target) -> None:
    assert fuzz.fuzz(target, 0, 1e-9, tmp_path).ends == {"passed": 1}
