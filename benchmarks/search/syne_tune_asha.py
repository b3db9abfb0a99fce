"""Syne Tune's ASHA as a search. It decides in a process of a Python that has it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, cast

from benchmarks.search.slots import Verdict

PROGRAM = Path(__file__).with_name("syne_tune_process.py")


class SyneTuneAsha:
    """``ASHA`` of Syne Tune, in the form that ``form`` names: promotion or stopping."""

    def __init__(
        self, python: str, form: str, num_trials: int, num_epochs: int, reduction_factor: int
    ) -> None:
        self._process = _process(python)
        self._process.ask("new", form, num_trials, num_epochs, reduction_factor, 0)

    def next_trial(self) -> int | None:
        return cast("int | None", self._process.ask("next_trial"))

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        return cast(Verdict, self._process.ask("epoch_ended", number, epoch, value))

    def training_ended(self, number: int) -> None:
        """The scheduler was told of each epoch."""


def syne_tune_forms(pythons: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Form -> the first of these Pythons whose Syne Tune has it, and that Syne Tune's version."""
    found: dict[str, tuple[str, str]] = {}
    for python in pythons:
        process = _process(python)
        for form in process.forms:
            found.setdefault(form, (python, process.version))
    return found


class _Process:
    """Answers one question at a time. It ends with this process, which holds its input."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process = subprocess.Popen(
            [python, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            text=True,
        )
        hello = self._answer()
        self.version: str = hello["version"]
        self.forms: list[str] = hello["forms"]

    def ask(self, call: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([call, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._python} {PROGRAM} ended: is syne-tune installed there?")
        return json.loads(line)


@cache
def _process(python: str) -> _Process:
    return _Process(python)
