"""Brings the tracking service up to a study's record, after a sweep could not reach it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.commands import common
from orchestrator.settings import Settings
from orchestrator.tracking.service import open_service
from vitaclip.terminal import Terminal


def sync_studies(studies: Sequence[str]) -> None:
    """Writes studies' records to the tracking service. Raises InputError if it cannot be
    reached.
    """
    service = open_service(Settings())
    service.check()
    for name in studies:
        record = common.open_record(name)
        writer = service.writer(record)
        writer.reconcile()
        writer.stop()
        Terminal().print(
            f"{name}: {len(record.trials())} trials are in {service.name} at {service.address}",
        )
