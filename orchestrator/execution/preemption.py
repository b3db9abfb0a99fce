"""The warning before a spot instance is taken away: SIGTERM to its processes, or Ray told to drain
its node.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from types import TracebackType
from typing import Self

import ray

from orchestrator.execution.ray_internals import draining_nodes

_POLL_NODE_S = 5.0


class Notice:
    """A context manager around what can stop in time; ask :meth:`given` now and then.

    Only a process's main thread may set Python's signal handlers, a trial runs in another one, and
    Ray's own handler ends the process at once. ``faulthandler`` may be set from any thread: it
    writes a traceback into a pipe, whose content is the signal.
    """

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        faulthandler.register(signal.SIGTERM, file=self._writing, all_threads=False)
        self._next_poll = 0.0
        self._given = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        faulthandler.unregister(signal.SIGTERM)
        os.close(self._reading)
        os.close(self._writing)

    def given(self) -> bool:
        """Whether this process was sent SIGTERM, or its node is being drained."""
        self._given = self._given or self._signalled() or self._draining()
        return self._given

    def _signalled(self) -> bool:
        try:
            return bool(os.read(self._reading, 1))
        except BlockingIOError:
            return False

    def _draining(self) -> bool:
        if time.monotonic() < self._next_poll:
            return False
        self._next_poll = time.monotonic() + _POLL_NODE_S
        return ray.get_runtime_context().get_node_id() in draining_nodes()
