"""The decisions of an asynchronous study, in the order in which they were taken.

A decision is written here before anything is done about it. Its number is taken exclusively: a
driver whose next number is taken has lost the study to another one, and decides no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.storage.keys import number_of
from orchestrator.storage.records.decision import Decision, JournalEntry, Observation
from orchestrator.storage.stores.base import KeyExistsError
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError, VitaClipError


class OtherDriverError(VitaClipError):
    """Another driver takes this study's decisions: this one must stop."""


def read_journal(record: StudyRecord) -> list[JournalEntry]:
    """Every decision of a study, oldest first. Raises InputError if one is missing."""
    keys = [key for key in record.store.list(record.keys.decisions) if key.endswith(".json")]
    entries = record.files.read_all(sorted(keys, key=number_of), JournalEntry)
    for expected, entry in enumerate(entries, start=1):
        if entry.number != expected:
            raise InputError(
                f"{record.store.uri}: {record.keys.decision(expected)} is missing although later "
                "decisions are there; restore it from a copy, or start the study under another "
                "name (--set name=...)"
            )
    return entries


def write_entry(
    record: StudyRecord, number: int, seen: Sequence[Observation], decision: Decision
) -> JournalEntry:
    """Writes the next decision.

    Args:
        record: the study's.
        number: that of the decision before, plus one.
        seen: what was learned between the two.
        decision: what is to be done.

    Raises:
        OtherDriverError: another driver has taken a decision of this number.
    """
    now = datetime.now(UTC)
    entry = JournalEntry(number=number, seen=tuple(seen), decision=decision, decided_at=now)
    try:
        record.files.create(record.keys.decision(number), entry)
    except KeyExistsError:
        raise OtherDriverError(
            f"study {record.name!r} in {record.store.uri}: another driver has taken decision "
            f"{number}; this one stops and leaves the study to it"
        ) from None
    return entry
