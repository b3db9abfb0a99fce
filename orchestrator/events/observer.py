"""Who hears what happens to a running study: the terminal, Prometheus, a tracking service."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo, TrialResult


class Observer:
    """Hears every event of one study. A subclass overrides what it wants to hear.

    The driver makes all calls, in the order of the events, from one thread. It waits for each call,
    so none may take long. What an event tells is in the study's record before it is told.
    """

    def opened(self, study: Study) -> None:
        """The study is about to run. The first call."""

    def started(self, trial: TrialInfo) -> None:
        """A trial was handed to Ray."""

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        """Trial ``number`` has reported an epoch, whose checkpoint is in the store."""

    def broke_off(self, number: int, reason: str) -> None:
        """Trial ``number`` lost its workers and is to be handed to Ray again."""

    def paused(self, number: int) -> None:
        """Trial ``number`` trains no more for now; if it is promoted, it starts again."""

    def training_ended(self, number: int, state: str) -> None:
        """Trial ``number`` trains no more; its benchmarks follow unless its state is ``failed``."""

    def finished(self, result: TrialResult) -> None:
        """A trial's result is on record."""

    def refreshed(self) -> None:
        """Time has passed. Called many times a second."""

    def closed(self) -> None:
        """The study runs no more, whatever ended it. The last call."""
