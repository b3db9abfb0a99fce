"""One driver per study: a lease in the store that outlives no crash.

Each driver takes the next number under ``<study>/leases``; creating a key is exclusive, so of two
that start at once one wins. The holder's heartbeat is a counter: nobody needs a synchronized clock
to see that it stands still. A host's name and process numbers prove nothing (cloned machines share
both), so a lease that was not given back is taken over only after it has stood still for its whole
time, whoever asks.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from orchestrator.execution.scratch import this_process
from orchestrator.storage.keys import StudyKeys, number_of
from orchestrator.storage.stores.base import KeyExistsError, Store, StoreError
from vitaclip.errors import InputError, VitaClipError

BEAT_S = 3.0
DEAD_AFTER_S = 20.0
_logger = logging.getLogger(__name__)


class LeaseLostError(VitaClipError):
    """Another driver took this study over while this one stood still."""


class Lease:
    """A context manager that holds a study for this process."""

    def __init__(
        self,
        store: Store,
        study: str,
        *,
        say: Callable[[str], None] = _logger.warning,
        beat_s: float = BEAT_S,
        dead_after_s: float = DEAD_AFTER_S,
    ) -> None:
        """A lease that is not taken yet.

        Args:
            store: where the study is.
            study: its name.
            say: told why taking the study takes a while.
            beat_s: seconds between two signs of life.
            dead_after_s: seconds without one after which a holder counts as dead.
        """
        self._store = store
        self._keys = StudyKeys(study)
        self._study = study
        self._token = uuid.uuid4().hex
        self._say = say
        self._beat_s = beat_s
        self._dead_after_s = dead_after_s
        self._key = ""
        self._released = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Takes the study: at once if its last driver gave it back, else when that one has stood
        still for long enough.

        Raises:
            InputError: another driver is at work on it.
        """
        number = 1
        if newest := self._newest():
            self._wait_for_death(newest)
            number = number_of(newest) + 1
        self._key = self._keys.lease(number)
        try:
            self._store.create_json(self._key, self._content(beat=0))
        except KeyExistsError:
            raise self._refusal("another driver that started at the same moment") from None
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._thread.join(self._beat_s)  # a store that is away may hold it for minutes
        if not (self._lost or self._thread.is_alive()):
            with suppress(StoreError, OSError):  # if it cannot be given back, it runs out
                self._store.write_json(self._key, self._content(beat=-1))

    def check(self) -> None:
        """Raises LeaseLostError once another driver has taken the study over."""
        if self._lost:
            raise LeaseLostError(
                f"study {self._study!r}: another driver took over after this one had not answered "
                f"for {self._dead_after_s:.0f} s; this one stops and leaves the study to it"
            )

    def _keep(self) -> None:
        beat = 0
        while not self._released.wait(self._beat_s):
            try:
                self._lost = self._newest() != self._key
                if self._lost:
                    return
                beat += 1
                self._store.write_json(self._key, self._content(beat))
            except (StoreError, OSError) as error:
                _logger.warning("lease of study %s could not be renewed: %s", self._study, error)

    def _newest(self) -> str | None:
        return max(self._store.list(self._keys.leases), default=None)

    def _wait_for_death(self, key: str) -> None:
        holder = self._store.read_json(key)
        if holder["beat"] < 0:
            return
        who = f"process {holder['pid']} on {holder['host'].partition(' ')[0]}"
        self._say(
            f"study {self._study!r} was not given back by its last driver ({who}); waiting up to "
            f"{self._dead_after_s:.0f} s for a sign of life"
        )
        deadline = time.monotonic() + self._dead_after_s
        while time.monotonic() < deadline:
            time.sleep(min(0.5, self._dead_after_s / 10))
            if self._store.read_json(key) != holder:
                raise self._refusal(who)

    def _refusal(self, who: str) -> InputError:
        return InputError(
            f"study {self._study!r} in {self._store.uri} is being run by {who}; wait for it, stop "
            "it, or give this study another name"
        )

    def _content(self, beat: int) -> dict[str, Any]:
        return {**this_process(), "token": self._token, "beat": beat}
