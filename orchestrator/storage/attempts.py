"""Attempts at a trial, and which of their checkpoints count.

A worker that was given up (its node was cut off, its machine suspended) may come back and go on
writing. So every attempt takes the next number, exclusively and before it starts, and notes which
checkpoint it goes on from. It publishes only into folders of its own. A reader starts at the newest
attempt and follows these notes backwards, so what an older attempt publishes after it was
superseded is never read.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from orchestrator.code_version import code_version
from orchestrator.storage.keys import TrialKeys
from orchestrator.storage.records.attempt import Attempt
from orchestrator.storage.stores.base import KeyExistsError
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import VitaClipError


class SupersededError(VitaClipError):
    """A newer attempt at this trial has begun, or the trial has finished: this one must write no
    more.
    """


def begin_attempt(record: StudyRecord, number: int) -> Attempt | None:
    """Takes the next attempt at a trial; older ones may write no more. None: the trial has
    finished.
    """
    while True:
        trial = record.trial(number)
        if trial.is_finished:
            return None
        attempt = Attempt(
            number=trial.newest_attempt + 1,
            token=uuid.uuid4().hex,
            goes_on_from=trial.newest_checkpoint,
            began_at=datetime.now(UTC),
            host=socket.gethostname(),
            code=code_version(),
        )
        try:
            record.files.create(trial.keys.attempt(attempt.number), attempt)
        except KeyExistsError:  # another worker began at the same moment
            continue
        return attempt


def check_current(keys: TrialKeys, attempt: int, is_stored: Callable[[str], bool]) -> None:
    """Raises SupersededError unless this is the newest attempt at an unfinished trial.

    Args:
        keys: the trial's.
        attempt: the attempt's number.
        is_stored: asks the store, or a list of what it holds.
    """
    if is_stored(keys.result):
        why = "the trial has finished"
    elif is_stored(keys.attempt(attempt + 1)):
        why = f"attempt {attempt + 1} has begun"
    else:
        return
    raise SupersededError(
        f"study {keys.study!r}, trial {keys.number}: {why}; attempt {attempt} was given up and "
        "writes no more"
    )
