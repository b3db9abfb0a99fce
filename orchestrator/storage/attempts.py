"""Attempts at a trial, and which of their checkpoints count.

A worker that was given up (its node was cut off, its machine suspended) may come back and go on
writing. So every attempt takes the next number, exclusively and before it starts, and notes which
checkpoint it goes on from. It publishes only into folders of its own. A reader starts at the newest
attempt and follows these notes backwards, so what an older attempt publishes after it was
superseded is never read::

    trials/0003/attempts/0002.json                          the number is taken
    trials/0003/attempts/0002.jsonl                         its log
    (:mod:`orchestrator.storage.trial_log`) trials/0003/checkpoints/attempt-0002/epoch-0004/
    a checkpoint of an epoch's end trials/0003/checkpoints/attempt-0002/epoch-0004-step-000007/  one
    from within an epoch
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

from pydantic import AwareDatetime, PositiveInt, ValidationError

from orchestrator.code_version import CodeVersion
from orchestrator.storage.store import MANIFEST, Store, StoreError
from vitaclip.config import Config, describe
from vitaclip.errors import VitaClipError

_CHECKPOINT = re.compile(r"(.*/checkpoints/attempt-(\d+)/epoch-(\d+)(?:-step-(\d+))?)(?:/.*)?")
_ATTEMPT = re.compile(r".*/attempts/(\d+)\.json")
_LOG = re.compile(r".*/attempts/\d+\.jsonl")


class SupersededError(VitaClipError):
    """A newer attempt at this trial has begun, or the trial has finished: this one must write no
    more.
    """


class Attempt(Config):
    """``attempts/0002.json``, written once, before the attempt starts."""

    number: PositiveInt
    token: str
    goes_on_from: str | None
    began_at: AwareDatetime
    host: str
    code: CodeVersion


class Checkpoint(NamedTuple):
    """One checkpoint's place: the attempt that made it, epochs done, optimizer steps done in the
    next one.
    """

    attempt: int
    epoch: int
    step: int
    key: str

    @classmethod
    def of(cls, key: str) -> Checkpoint | None:
        """The checkpoint to which a key in the store belongs, if it belongs to one."""
        match = _CHECKPOINT.fullmatch(key)
        return match and cls(int(match[2]), int(match[3]), int(match[4] or 0), match[1])

    @property
    def place(self) -> tuple[int, int]:
        """How far the training had come."""
        return self.epoch, self.step


def _parse(key: str, text: str) -> Attempt:
    try:
        return Attempt.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"{key} is no attempt's record: {describe(error)}; restore it from a copy, or start "
            "the study "
            "under another name"
        ) from None


class TrialFolder:
    """What a trial's folder in the store holds at one moment."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self.key = key
        self._keys = store.list(key)

    @property
    def is_finished(self) -> bool:
        """Whether the trial's result is written."""
        return f"{self.key}/result.json" in self._keys

    @cached_property
    def newest_attempt(self) -> int:
        """The number of the last attempt that began; 0: none has."""
        return max(
            (int(match[1]) for match in map(_ATTEMPT.fullmatch, self._keys) if match), default=0
        )

    @cached_property
    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first."""
        keys = sorted(filter(_ATTEMPT.fullmatch, self._keys))
        return [
            _parse(key, text) for key, text in zip(keys, self._store.read_texts(keys), strict=True)
        ]

    @property
    def log_keys(self) -> list[str]:
        """The logs of all attempts, oldest first."""
        return list(filter(_LOG.fullmatch, self._keys))

    @cached_property
    def all_checkpoints(self) -> set[Checkpoint]:
        """Every checkpoint of which anything is stored: half uploaded ones and those that do not
        count, too.
        """
        return {found for found in map(Checkpoint.of, self._keys) if found}

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """The whole checkpoints that count, oldest first."""
        left = {c for c in self.all_checkpoints if f"{c.key}/{MANIFEST}" in self._keys}
        counted: dict[tuple[int, int], Checkpoint] = {}
        attempt, last = self.newest_attempt, (float("inf"), 0.0)
        while left:
            found = {c.place: c for c in left if c.attempt == attempt and c.place <= last}
            counted = found | counted
            left = {c for c in left if c.attempt < attempt}
            start = self._start_of(attempt) if left else None
            if start is None:
                break
            attempt, last = start.attempt, start.place
        return [counted[place] for place in sorted(counted)]

    def _start_of(self, attempt: int) -> Checkpoint | None:
        name = f"{self.key}/attempts/{attempt:04d}.json"
        key = _parse(name, self._store.read_text(name)).goes_on_from
        return None if key is None else Checkpoint.of(key)
