"""The median rule (Golovin et al., Google Vizier, 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from orchestrator.config import Objective, SchedulerConfig

_MIN_TRIALS = 3


class Median:
    """At every epoch from ``grace_period`` a trial may not be worse than the median of the
    others.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._grace_period = config.grace_period

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return range(self._grace_period, num_epochs)

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        return median(values) if len(values) >= _MIN_TRIALS else None
