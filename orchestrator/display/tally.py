"""Which trials run, are being scored and have ended: what the display and the gauges are made
from.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.storage.records import TrialRecord, TrialResult


@dataclass
class RunningTrial:
    """A trial that Ray has."""

    trial: TrialRecord
    # of its last epoch; empty before the first
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


class Tally:
    """The driver tells it what happens, from one thread. Each subclass keeps its own."""

    def __init__(self, ended: Counter[str]) -> None:
        self.running: dict[int, RunningTrial] = {}
        self.scoring: set[int] = set()
        self.ended = Counter(ended)  # state -> trials whose result is on record

    def started(self, trial: TrialRecord) -> None:
        """A trial was handed to Ray."""
        self.running[trial.number] = RunningTrial(trial)

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        """A trial has reported an epoch."""
        self.running[number].metrics = metrics

    def broke_off(self, number: int, reason: str) -> None:
        """A trial lost its workers and is to be handed to Ray again."""
        self.running.pop(number, None)

    def training_ended(self, number: int, state: str) -> None:
        """A trial's training is over; its benchmarks follow unless it failed."""
        self.running.pop(number, None)
        if state != "failed":
            self.scoring.add(number)

    def finished(self, result: TrialResult) -> None:
        """A trial's result is on record."""
        self.scoring.discard(result.number)
        self.ended[result.state] += 1
