"""Every key of a study's record, spelled once.

::

    <study>/study.json                          what the study is and what it ran on
    <study>/control/000001.json                 one change of a study that may be running
    <study>/decisions/000001.json               one decision of an asynchronous study
    <study>/leases/000001.json                  one driver's hold on the study
    <study>/trials/0003/trial.json              written before the trial starts
    <study>/trials/0003/attempts/0002.json      the second attempt took its number
    <study>/trials/0003/attempts/0002.jsonl     its log
    <study>/trials/0003/checkpoints/attempt-0002/epoch-0004/              of an epoch's end
    <study>/trials/0003/checkpoints/attempt-0002/epoch-0004-step-000007/  from within an epoch
    <study>/trials/0003/verdicts/0004-pause.json  what the trial does after epoch 4
    <study>/trials/0003/scores/<benchmark>.json one benchmark's score of the best checkpoint
    <study>/trials/0003/result.json             written once, last: its existence means "finished"
    <study>/baselines/<way>/scores/<benchmark>.json  the same on the frozen CLIP, for each way of
                                                drawing clips
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_STUDY = re.compile(r"([^/]+)/study\.json")
_TRIAL_FILE = re.compile(r"[^/]+/trials/(\d+)/(trial|result)\.json")
_ATTEMPT = re.compile(r".*/attempts/(\d+)\.json")
_LOG = re.compile(r".*/attempts/\d+\.jsonl")
_CHECKPOINT = re.compile(r"(.*/checkpoints/attempt-(\d+)/epoch-(\d+)(?:-step-(\d+))?)(?:/.*)?")


@dataclass(frozen=True)
class StudyKeys:
    """The keys of one study."""

    study: str

    @property
    def info(self) -> str:
        return f"{self.study}/study.json"

    @property
    def changes(self) -> str:
        """The folder of all changes."""
        return f"{self.study}/control"

    def change(self, number: int) -> str:
        return f"{self.changes}/{number:06d}.json"

    @property
    def decisions(self) -> str:
        """The folder of all decisions."""
        return f"{self.study}/decisions"

    def decision(self, number: int) -> str:
        return f"{self.decisions}/{number:06d}.json"

    @property
    def leases(self) -> str:
        """The folder of all leases."""
        return f"{self.study}/leases"

    def lease(self, number: int) -> str:
        return f"{self.leases}/{number:06d}.json"

    @property
    def trials(self) -> str:
        """The folder of all trials."""
        return f"{self.study}/trials"

    def trial(self, number: int) -> TrialKeys:
        return TrialKeys(self.study, number)

    def baseline_scores(self, way: str) -> str:
        """The folder of the frozen CLIP's scores on clips drawn in one way."""
        return f"{self.study}/baselines/{way}/scores"


@dataclass(frozen=True)
class TrialKeys:
    """The keys of one trial."""

    study: str
    number: int

    @property
    def folder(self) -> str:
        return f"{StudyKeys(self.study).trials}/{self.number:04d}"

    @property
    def info(self) -> str:
        return f"{self.folder}/trial.json"

    @property
    def result(self) -> str:
        return f"{self.folder}/result.json"

    @property
    def scores(self) -> str:
        """The folder of all its scores."""
        return f"{self.folder}/scores"

    def attempt(self, number: int) -> str:
        return f"{self.folder}/attempts/{number:04d}.json"

    @property
    def verdicts(self) -> str:
        """The folder of all verdicts on it."""
        return f"{self.folder}/verdicts"

    def verdict(self, epoch: int, kind: str) -> str:
        """What it does after an epoch: the name says it."""
        return f"{self.verdicts}/{epoch:04d}-{kind}.json"

    def log(self, attempt: int) -> str:
        return f"{self.attempt(attempt)}l"

    def checkpoint(self, attempt: int, epoch: int, step: int = 0) -> Checkpoint:
        """Of an epoch's end, or, with a step, from within the epoch after it."""
        within = f"-step-{step:06d}" if step else ""
        key = f"{self.folder}/checkpoints/attempt-{attempt:04d}/epoch-{epoch:04d}{within}"
        return Checkpoint(attempt, epoch, step, key)


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


def score_key(folder: str, benchmark: str) -> str:
    """Of one benchmark, in a folder of scores."""
    return f"{folder}/{benchmark.replace('/', '-')}.json"


def number_of(key: str) -> int:
    """The number that a change, a decision, a lease or an attempt has."""
    return int(key.rpartition("/")[2].partition(".")[0])


def study_of(key: str) -> str | None:
    """The study whose ``study.json`` this is, if it is one."""
    match = _STUDY.fullmatch(key)
    return match and match[1]


def trial_of(key: str) -> int | None:
    """The number of the trial whose ``trial.json`` or ``result.json`` this is, if it is one."""
    match = _TRIAL_FILE.fullmatch(key)
    return match and int(match[1])


def is_attempt(key: str) -> bool:
    return _ATTEMPT.fullmatch(key) is not None


def is_log(key: str) -> bool:
    return _LOG.fullmatch(key) is not None
