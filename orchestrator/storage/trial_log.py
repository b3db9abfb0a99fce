"""One structured log per trial, over all its attempts: one JSON object a line.

Each line has ``time`` and ``event``: an attempt's start and end, each epoch's metrics, and whatever
this project's packages warn of meanwhile. Each attempt has a file of its own. The trial's first
worker writes it, whole and after every epoch: an object store cannot append. The other workers'
warnings are in Ray's logs only.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pydantic_core import to_json

from orchestrator.storage.stores.base import StoreError
from orchestrator.storage.study_record import StudyRecord

_PACKAGES = ("vitaclip", "orchestrator")


class TrialLog(logging.Handler):
    """A context manager around one attempt at a trial."""

    def __init__(
        self,
        record: StudyRecord,
        number: int,
        attempt: int,
        *,
        num_workers: int = 1,
        is_first: bool = True,
    ) -> None:
        """A log that is not begun yet.

        Args:
            record: the study's.
            number: the trial's.
            attempt: the attempt's.
            num_workers: how many train the trial together.
            is_first: whether this is the one whose log is kept.
        """
        super().__init__(logging.WARNING)
        self._store = record.store
        self._key = record.keys.trial(number).log(attempt)
        self._attempt, self._num_workers, self._is_first = attempt, num_workers, is_first
        self._lines = ""

    def __enter__(self) -> Self:
        self.add(
            "start",
            attempt=self._attempt,
            host=socket.gethostname(),
            pid=os.getpid(),
            num_workers=self._num_workers,
        )
        for package in _PACKAGES:
            logging.getLogger(package).addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for package in _PACKAGES:
            logging.getLogger(package).removeHandler(self)
        self.add("end", **({} if error is None else {"error": f"{type(error).__name__}: {error}"}))
        with suppress(StoreError, OSError):  # what ended the attempt matters more
            self.save()

    def add(self, event: str, **fields: object) -> None:
        """One line."""
        line = {"time": datetime.now(UTC), "event": event, **fields}
        self._lines += to_json(line, inf_nan_mode="strings").decode() + "\n"

    def emit(self, record: logging.LogRecord) -> None:
        """One line for a warning of ours."""
        self.add(record.levelname.lower(), message=record.getMessage(), logger=record.name)

    def save(self) -> None:
        """Writes all lines to the store, if this log is kept. Raises StoreError."""
        if self._is_first:
            self._store.write_text(self._key, self._lines)
