"""Looks at a study's record while somebody watches, and keeps what all of them are shown.

One thread reads the store; browsers are answered from memory. So the number of viewers changes
nothing for the store, an unanswered store holds no browser, and a page that nobody has open costs
nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.live.driver import DriverWatch
from orchestrator.live.sections import Section, html_section, sections
from orchestrator.live.trial import trial_sections
from orchestrator.reporting.html import note
from orchestrator.reporting.study_data import read_study
from orchestrator.reporting.tables import tables
from orchestrator.search.study import Study
from orchestrator.storage.keys import is_log
from orchestrator.storage.stores.base import Store
from orchestrator.storage.stores.remembering import RememberingStore
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import VitaClipError

_PATIENCE_S = 10.0  # how long a trial that nobody asks for any more is looked at
_MAX_TRIALS = 20  # that are looked at together
_REST = 2  # a look that takes a second is followed by two without one


@dataclass(frozen=True)
class Answer:
    """What browsers are shown, and a tag that is another one when it is."""

    body: bytes
    tag: str

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Answer:
        """A value as JSON."""
        return cls.of_bytes(json.dumps(content).encode())

    @classmethod
    def of_bytes(cls, body: bytes) -> Answer:
        """A body as it is."""
        return cls(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class Watch:
    """A study as it was at the last look. All methods may be called from any thread.

    Args:
        store: where the study is.
        name: the study's.
        interval_s: seconds between two looks, at least.
    """

    def __init__(self, store: Store, name: str, interval_s: float = 2.0) -> None:
        self.name = name
        self._store = RememberingStore(store, name)
        self._interval_s = interval_s
        self._study = Answer.of({"name": name, "problem": "", "sections": []})
        self._trials: dict[int, Answer] = {}
        self._wanted: dict[int, float] = {}  # trials, and when they were last asked for
        self._lock = threading.Lock()  # of the two above
        self._asked = threading.Event()
        self._opened = threading.Event()  # a trial that was not looked at yet
        self._looked_at: float | None = None
        self._shown: object = None  # what the sections were made from
        self._content: dict[str, Any] = {}
        self._driver = DriverWatch()
        threading.Thread(target=self._keep_looking, name="watch", daemon=True).start()

    @property
    def age_s(self) -> float | None:
        """Seconds since the last look that succeeded; None: none has."""
        return None if self._looked_at is None else time.monotonic() - self._looked_at

    def study(self) -> Answer:
        """The page's sections. The next look comes soon, for somebody watches."""
        self._asked.set()
        return self._study

    def trial(self, number: int) -> Answer:
        """The sections of one trial; empty before the first look at it."""
        with self._lock:
            self._wanted[number] = time.monotonic()
            answer = self._trials.get(number)
        self._asked.set()
        if answer is None:
            self._opened.set()
        return answer or Answer.of({"number": number, "sections": []})

    def _keep_looking(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            began = time.monotonic()
            self._look()
            took_s = time.monotonic() - began
            rested = time.monotonic() + max(self._interval_s, _REST * took_s)
            while (left_s := rested - time.monotonic()) > 0:
                if self._opened.wait(left_s):
                    self._look_at_trials()

    def _look(self) -> None:
        try:
            versions = self._store.look()
            self._content = self._read(versions)
            self._look_at_trials()
        except (VitaClipError, OSError) as error:
            self._content |= {"name": self.name, "problem": str(error)}
            self._content.setdefault("sections", [])
        else:
            self._looked_at = time.monotonic()
        self._study = Answer.of(self._content)

    def _read(self, versions: Mapping[str, str]) -> dict[str, Any]:
        record = StudyRecord(self._store, self.name)
        leases = f"{record.keys.leases}/"
        driver = self._driver.see(record, versions)
        told = {k: v for k, v in versions.items() if not k.startswith(leases) and not is_log(k)}
        if (told, driver) == self._shown:
            return self._content | {"problem": ""}
        config, data = record.info.config, read_study(record)
        problems = list(data.unreadable)
        try:
            found = sections(Study(config, record), data, *driver)
        except VitaClipError as error:  # a damaged file hides no other
            problems.append(str(error))
            found = [html_section(*titled) for titled in tables(data)]
        self._shown = (told, driver)
        return {
            "name": self.name,
            "question": config.question,
            "hypothesis": config.hypothesis,
            "problem": "",
            "sections": [*map(_left_out, problems), *found],
        }

    def _look_at_trials(self) -> None:
        """Those that somebody looks at; a trial's log is read for them only."""
        self._opened.clear()
        record, now = StudyRecord(self._store, self.name), time.monotonic()
        with self._lock:
            self._wanted = {n: at for n, at in self._wanted.items() if now - at < _PATIENCE_S}
            wanted = sorted(self._wanted, key=lambda n: -self._wanted[n])[:_MAX_TRIALS]
        found = {n: Answer.of({"number": n, "sections": _trial(record, n)}) for n in wanted}
        with self._lock:
            self._trials = found


def _trial(record: StudyRecord, number: int) -> list[Section]:
    try:
        return trial_sections(record, number)
    except (VitaClipError, OSError) as error:
        return [_left_out(str(error))]


def _left_out(problem: str) -> Section:
    return html_section("Left out", note(problem))
