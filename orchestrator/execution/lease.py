"""One driver per study: a lease in the store that outlives no crash.

Each driver takes the next number under ``<study>/leases``; creating a key is exclusive, so of two that start at once
one wins. The holder's heartbeat is a counter: another host needs no synchronised clock to see that it stands still.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.execution.scratch import is_alive, is_local, this_process
from orchestrator.storage.store import KeyExistsError, Store, StoreError
from vitaclip.errors import InputError, VitaClipError

BEAT_S = 5.0
DEAD_AFTER_S = 30.0
_logger = logging.getLogger(__name__)


class LeaseLostError(VitaClipError):
    """Another driver took this study over while this one stood still."""


class Lease:
    """A context manager that holds a study for this process."""

    def __init__(
        self, store: Store, study: str, *, beat_s: float = BEAT_S, dead_after_s: float = DEAD_AFTER_S
    ) -> None:
        self._store = store
        self._folder = f"{study}/leases"
        self._study = study
        self._beat_s = beat_s
        self._dead_after_s = dead_after_s
        self._key = ""
        self._released = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Takes the study, at once if its last driver ended or died on this host.

        Raises:
            InputError: another driver is at work on it.
        """
        number = 1
        if newest := self._newest():
            self._wait_for_death(newest)
            number = int(Path(newest).stem) + 1
        self._key = f"{self._folder}/{number:06d}.json"
        try:
            self._store.create_json(self._key, self._content(beat=0))
        except KeyExistsError:
            raise self._refusal("another driver that started at the same moment") from None
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
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
                f"study {self._study!r}: another driver took over after this one had not answered for "
                f"{self._dead_after_s:.0f} s; this one stops and leaves the study to it"
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
        return max(self._store.list(self._folder), default=None)

    def _wait_for_death(self, key: str) -> None:
        holder = self._store.read_json(key)
        if holder["beat"] < 0:
            return
        if is_local(holder):
            if is_alive(holder):
                raise self._refusal(f"process {holder['pid']} on this machine")
            return
        deadline = time.monotonic() + self._dead_after_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._dead_after_s / 10))
            if self._store.read_json(key) != holder:
                raise self._refusal(f"process {holder['pid']} on {holder['host'].partition(' ')[0]}")

    def _refusal(self, who: str) -> InputError:
        return InputError(
            f"study {self._study!r} in {self._store.uri} is being run by {who}; wait for it, stop it, or give "
            "this study another name"
        )

    @staticmethod
    def _content(beat: int) -> dict[str, Any]:
        return {**this_process(), "beat": beat}
