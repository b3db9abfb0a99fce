"""Successive halving without waiting (Li et al., A system for massively parallel hyperparameter
tuning, 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import Objective, SchedulerConfig
from orchestrator.search.stopping.rule import Judgment
from orchestrator.search.stopping.rung import Rung


class Asha:
    """At the rungs ``grace_period * reduction_factor ** k`` a trial must be among the best
    1/reduction_factor of those that came as far.

    In the promotion form a trial that is not among them pauses, and goes on when it is, because
    worse ones have come as far. In the stopping form it ends.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._grace_period = config.grace_period
        self._factor = config.reduction_factor
        self._stops = config.form == "stopping"

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return [rung for rung in self.rungs(num_epochs) if rung < num_epochs]

    def bracket(self, number: int, num_epochs: int) -> int:
        return 0

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        if len(values) < self._factor:
            return None
        ranked = sorted(values, key=objective.gain, reverse=True)
        return ranked[len(ranked) // self._factor - 1]

    def judge(self, number: int, rung: Rung) -> Judgment:
        # in the stopping form the best of the first trials at a rung goes on: none has another try
        num_best = max(len(rung.reached) // self._factor, int(self._stops))
        rank = rung.ranked().index(number)
        why = (
            f"rank {rank + 1} of {len(rung.reached)} after epoch {rung.epoch}, where the best "
            f"{num_best} go on"
        )
        if rank < num_best:
            return Judgment("go_on", why)
        return Judgment("stop" if self._stops else "pause", why)

    def promotable(self, rung: Rung) -> Sequence[int]:
        if self._stops:
            return ()
        best = rung.ranked()[: len(rung.reached) // self._factor]
        return [number for number in best if number not in rung.passed]

    def rungs(self, num_epochs: int) -> list[int]:
        """The first rung, and all later ones that lie before the last epoch."""
        rungs = [self._grace_period]
        while rungs[-1] * self._factor < num_epochs:
            rungs.append(rungs[-1] * self._factor)
        return rungs
