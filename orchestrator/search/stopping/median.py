"""The median rule (Golovin et al., Google Vizier, 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from orchestrator.config import Objective, SchedulerConfig
from orchestrator.search.stopping.rule import Judgment
from orchestrator.search.stopping.rung import Rung

_MIN_TRIALS = 3


class Median:
    """At every epoch from ``grace_period`` a trial may not be worse than the median of the
    others.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._grace_period = config.grace_period

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return range(self._grace_period, num_epochs)

    def bracket(self, number: int, num_epochs: int) -> int:
        return 0

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        return median(values) if len(values) >= _MIN_TRIALS else None

    def judge(self, number: int, rung: Rung) -> Judgment:
        objective, (value, *_) = rung.objectives[0], rung.reached[number]
        others = self.threshold(rung.others(number), objective)
        if others is None:
            return Judgment("go_on", f"fewer than {_MIN_TRIALS} others reached epoch {rung.epoch}")
        why = (
            f"the best {objective.metric} up to epoch {rung.epoch} was {value:.4g}, the median of "
            f"{len(rung.reached) - 1} others is {others:.4g}"
        )
        return Judgment("stop" if objective.better(others, value) else "go_on", why)

    def promotable(self, rung: Rung) -> Sequence[int]:
        return ()
