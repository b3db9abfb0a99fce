"""Successive halving without waiting (Li et al., A system for massively parallel hyperparameter
tuning, 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import Objective, SchedulerConfig


class Asha:
    """At the rungs ``grace_period * reduction_factor ** k`` a trial must be among the best
    1/reduction_factor of those that came as far.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._grace_period = config.grace_period
        self._factor = config.reduction_factor

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return [rung for rung in self.rungs(num_epochs) if rung < num_epochs]

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        if len(values) < self._factor:
            return None
        ranked = sorted(values, key=objective.gain, reverse=True)
        return ranked[len(ranked) // self._factor - 1]

    def rungs(self, num_epochs: int) -> list[int]:
        """The first rung, and all later ones that lie before the last epoch."""
        rungs = [self._grace_period]
        while rungs[-1] * self._factor < num_epochs:
            rungs.append(rungs[-1] * self._factor)
        return rungs
