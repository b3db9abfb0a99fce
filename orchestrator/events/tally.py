"""Which trials run, are being scored and have ended: what the display and the gauges show."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.events.observer import Observer
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo, TrialResult


@dataclass
class RunningTrial:
    """A trial that Ray has."""

    trial: TrialInfo
    # of its last epoch; empty before the first
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


class Tally(Observer):
    """Counts along with the events. Each subclass keeps its own count."""

    def __init__(self) -> None:
        self.running: dict[int, RunningTrial] = {}
        self.resting: set[int] = set()  # paused: they may be promoted
        self.scoring: set[int] = set()
        # state -> trials whose result is on record
        self.ended = Counter[str]()

    def opened(self, study: Study) -> None:
        self.ended = study.finished_states

    def started(self, trial: TrialInfo) -> None:
        self.resting.discard(trial.number)
        self.running[trial.number] = RunningTrial(trial)

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        self.running[number].metrics = metrics

    def broke_off(self, number: int, reason: str) -> None:
        self.running.pop(number, None)

    def paused(self, number: int) -> None:
        self.running.pop(number, None)
        self.resting.add(number)

    def training_ended(self, number: int, state: str) -> None:
        self.running.pop(number, None)
        self.resting.discard(number)
        if state != "failed":
            self.scoring.add(number)

    def finished(self, result: TrialResult) -> None:
        self.scoring.discard(result.number)
        self.ended[result.state] += 1
