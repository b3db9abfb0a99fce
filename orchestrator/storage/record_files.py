"""The JSON files of a record, read and written as typed values; errors say how to go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pydantic import ValidationError

from orchestrator.storage.keys import trial_of
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.score import BenchmarkScore
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.base import MissingKeyError, Store, StoreError
from vitaclip.config import Config, describe

Unreadable = list[str]  # where readers that go on nevertheless note what they left out, and why
_Record = TypeVar("_Record", bound=Config)

# What to do about a file that cannot be read.
_WAYS_OUT: dict[type[Config], str] = {
    BenchmarkScore: "delete it: `python -m orchestrator.evaluate STUDY` makes it again",
    TrialResult: "delete it: the next start of the sweep writes it again",
    ControlChange: "delete it, and ask for the change again",
}
_WAY_OUT = "restore it from a copy, or start the study under another name (--set name=...)"


class RecordFiles:
    """Typed access to a store's JSON values."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, key: str, kind: type[_Record]) -> _Record:
        """Raises MissingKeyError, or StoreError where the file is none of this kind."""
        return self._parse(key, self.store.read_text(key), kind)

    def read_if_there(self, key: str, kind: type[_Record]) -> _Record | None:
        """None: there is no such file. Raises StoreError where it is none of this kind."""
        try:
            return self.read(key, kind)
        except MissingKeyError:
            return None

    def read_each(
        self, keys: Iterable[str], kind: type[_Record], unreadable: Unreadable | None = None
    ) -> Iterator[_Record]:
        """One file after the other. Those that cannot be read raise StoreError, or are noted."""
        for key in keys:
            try:
                yield self.read(key, kind)
            except StoreError as error:
                if unreadable is None:
                    raise
                unreadable.append(str(error))

    def read_all(
        self, keys: Sequence[str], kind: type[_Record], unreadable: Unreadable | None = None
    ) -> list[_Record]:
        """Several files at once, in the order of their keys. Those that cannot be read raise
        StoreError, or are noted.
        """
        try:
            texts = zip(keys, self.store.read_texts(keys), strict=True)
            return [self._parse(key, text, kind) for key, text in texts]
        except StoreError:
            # slower, but it finds out which
            return list(self.read_each(keys, kind, unreadable))

    def write(self, key: str, record: Config, *, indent: int | None = 1) -> None:
        """Writes or replaces a file."""
        self.store.write_json(key, record.model_dump(mode="json"), indent=indent)

    def create(self, key: str, record: Config) -> None:
        """Writes a file that is written once. Raises KeyExistsError if another stands there."""
        self.store.create_json(key, record.model_dump(mode="json"))

    def _parse(self, key: str, text: str, kind: type[_Record]) -> _Record:
        way_out = _WAYS_OUT.get(kind, _WAY_OUT)
        try:
            record = kind.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            reason = describe(error) if isinstance(error, ValidationError) else "is nested too deep"
            raise StoreError(
                f"{self.store.uri}: {key} is no {kind.__name__} of this version: {reason}; "
                f"{way_out}"
            ) from None
        if isinstance(record, TrialInfo | TrialResult) and record.number != trial_of(key):
            raise StoreError(f"{self.store.uri}: {key} tells of another trial; {way_out}")
        return record
