"""How a worker learns what its trial is to do after an epoch that is judged.

The driver writes each verdict as a file of the trial, named after the epoch and the verdict, once.
The journal has the decision itself (:mod:`orchestrator.storage.journal`).
"""

from __future__ import annotations

from orchestrator.storage.records.decision import Verdict
from orchestrator.storage.study_record import StudyRecord

_ENDS = ("pause", "stop")


def tell_verdict(record: StudyRecord, verdict: Verdict) -> None:
    """Writes a verdict for the trial's workers; to write it again changes nothing."""
    keys = record.keys.trial(verdict.trial)
    record.files.create(keys.verdict(verdict.epoch, verdict.kind), verdict)


def goes_on(record: StudyRecord, number: int, epoch: int) -> bool | None:
    """Whether a trial goes on after an epoch; None: that is not decided yet."""
    keys = record.keys.trial(number)
    found = set(record.store.list(keys.verdicts))
    if keys.verdict(epoch, "go_on") in found or keys.verdict(epoch, "promote") in found:
        return True
    return False if any(keys.verdict(epoch, kind) in found for kind in _ENDS) else None
