"""The link between a running sweep and MLflow: it may break at any moment, and the sweep does not
notice.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from orchestrator.settings import without_password
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.client import reason
from orchestrator.tracking.tracker import Tracker

_MAX_WAITING = 10_000
_FIRST_DELAY_S, _LAST_DELAY_S = 1.0, 30.0  # between two attempts while MLflow fails
_logger = logging.getLogger(__name__)


class Mirror:
    """Keeps MLflow up with a running study, from one background thread.

    No call here waits for MLflow. While it fails, nothing is kept but the record, in which each
    epoch and result was written before it was announced here; once MLflow answers again, it is
    brought up to that.
    """

    def __init__(self, tracking_uri: str, record: StudyRecord) -> None:
        self._uri = tracking_uri
        self._record = record
        self._waiting: queue.Queue[Callable[[Tracker], None]] = queue.Queue(_MAX_WAITING)
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._delivered = False
        self._delay_s = 0.0
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Announcements that MLflow has not been told yet."""
        return self._waiting.qsize()

    def start(self) -> None:
        """Starts with everything that the record holds."""
        self._thread.start()

    def notify(self, trial_number: int) -> None:
        """Announces a finished epoch, whose checkpoint is in the store."""
        self._announce(lambda tracker: tracker.log_epochs(trial_number))

    def trial_finished(self, trial_number: int) -> None:
        """Announces a finished trial, whose result is in the store."""
        self._announce(lambda tracker: tracker.log_finished(trial_number))

    def close(self, timeout_s: float) -> bool:
        """Delivers what waits and ends the runs; False if MLflow did not take it all within
        ``timeout_s``.

        What is missing then is delivered by the study's next start, or by ``python -m
        orchestrator.sync``.
        """
        self._closing.set()
        self._announce(lambda _: None)  # wakes the thread
        self._thread.join(timeout_s)
        self._abandoned.set()
        return self._delivered

    def _announce(self, event: Callable[[Tracker], None]) -> None:
        # the thread is failing, and will start again from the record
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(event)

    def _run(self) -> None:
        while not (self._delivered or self._abandoned.wait(self._delay_s)):
            try:
                self._deliver()
            except Exception as error:  # whatever MLflow does, training goes on
                self._back_off(error)

    def _deliver(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        tracker = Tracker(self._uri, self._record)
        tracker.reconcile()
        self._recovered()
        with tracker.system_metrics():
            while not (self._closing.is_set() and self._waiting.empty()):
                self._waiting.get()(tracker)
        tracker.reconcile()
        tracker.stop()
        self._delivered = True

    def _back_off(self, error: Exception) -> None:
        if not self._delay_s and not self._abandoned.is_set():
            message = (
                "MLflow at %s fails: %s. Training goes on; MLflow is brought up once it answers."
            )
            _logger.warning(message, without_password(self._uri), reason(error, self._uri))
        self._delay_s = min(max(2 * self._delay_s, _FIRST_DELAY_S), _LAST_DELAY_S)

    def _recovered(self) -> None:
        if self._delay_s:
            _logger.warning(
                "MLflow at %s answers again and has everything.", without_password(self._uri)
            )
        self._delay_s = 0.0
