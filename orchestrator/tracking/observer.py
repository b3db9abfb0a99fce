"""The link between a running study and a tracking service: it may break at any moment, and the
study does not notice.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping

from orchestrator.events.observer import Observer
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.service import StudyWriter, TrackingService

_CLOSE_TIMEOUT_S = 30.0
_MAX_WAITING = 10_000
# between two attempts while the service fails
_FIRST_DELAY_S, _LAST_DELAY_S = 1.0, 30.0
_logger = logging.getLogger(__name__)


class TrackingObserver(Observer):
    """Keeps a service up with a running study, from one background thread.

    No event waits for the service. While it fails, nothing is kept but the record, in which each
    epoch and result was written before it was told here; once the service answers again, it is
    brought up to that.
    """

    def __init__(
        self,
        service: TrackingService,
        record: StudyRecord,
        close_timeout_s: float = _CLOSE_TIMEOUT_S,
    ) -> None:
        self._service = service
        self._record = record
        self._close_timeout_s = close_timeout_s
        self._waiting: queue.Queue[Callable[[StudyWriter], None]] = queue.Queue(_MAX_WAITING)
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._delay_s = 0.0
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        # whether the service has taken everything; what it has not is delivered by the study's
        # next start, or by the command `sync`
        self.delivered = False

    @property
    def num_waiting(self) -> int:
        """Events that the service has not been told yet."""
        return self._waiting.qsize()

    def opened(self, study: Study) -> None:
        """Starts with everything that the record holds."""
        self._thread.start()

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        self._announce(lambda writer: writer.log_epochs(number))

    def finished(self, result: TrialResult) -> None:
        self._announce(lambda writer: writer.log_finished(result.number))

    def closed(self) -> None:
        """Delivers what waits and ends the runs, as far as there is time for it."""
        self._closing.set()
        self._announce(lambda _: None)  # wakes the thread
        self._thread.join(self._close_timeout_s)
        self._abandoned.set()

    def _announce(self, event: Callable[[StudyWriter], None]) -> None:
        # A full queue is no loss: the thread is failing, and will start again from the record.
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(event)

    def _run(self) -> None:
        while not (self.delivered or self._abandoned.wait(self._delay_s)):
            try:
                self._deliver()
            except Exception as error:  # whatever the service does, training goes on
                self._back_off(error)

    def _deliver(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        writer = self._service.writer(self._record)
        writer.reconcile()
        self._recovered()
        with writer.system_metrics():
            while not (self._closing.is_set() and self._waiting.empty()):
                self._waiting.get()(writer)
        writer.reconcile()
        writer.stop()
        self.delivered = True

    def _back_off(self, error: Exception) -> None:
        name, address = self._service.name, self._service.address
        if not self._delay_s and not self._abandoned.is_set():
            message = "%s at %s fails: %s. Training goes on; %s is brought up once it answers."
            _logger.warning(message, name, address, self._service.reason(error), name)
        self._delay_s = min(max(2 * self._delay_s, _FIRST_DELAY_S), _LAST_DELAY_S)

    def _recovered(self) -> None:
        if self._delay_s:
            name, address = self._service.name, self._service.address
            _logger.warning("%s at %s answers again and has everything.", name, address)
        self._delay_s = 0.0
