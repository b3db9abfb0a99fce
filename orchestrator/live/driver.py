"""Whether a study's driver is at work: its lease's heartbeat goes on, as far as one can see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from orchestrator.execution.lease import DEAD_AFTER_S
from orchestrator.storage.study_record import StudyRecord

Sign = Literal["no driver yet", "at work", "gave the study back", "no sign of life"]


class DriverWatch:
    """Sees each look at the record, and remembers when the heartbeat last changed.

    Clocks of two machines are not compared: what counts is that the lease has another content.
    """

    def __init__(self) -> None:
        self._lease: tuple[str, str] | None = None  # key and mark
        self._changed_at = 0.0

    def see(self, record: StudyRecord, versions: Mapping[str, str]) -> tuple[Sign, str]:
        """What the newest lease says, and who holds it."""
        leases = [key for key in versions if key.startswith(f"{record.keys.leases}/")]
        if not leases:
            return "no driver yet", ""
        newest = max(leases)
        if self._lease != (newest, versions[newest]):
            self._lease, self._changed_at = (newest, versions[newest]), time.monotonic()
        content = record.store.read_json(newest)
        who = f"process {content['pid']} on {str(content['host']).partition(' ')[0]}"
        if content["beat"] < 0:
            return "gave the study back", who
        if time.monotonic() - self._changed_at > DEAD_AFTER_S:
            return "no sign of life", who
        return "at work", who
