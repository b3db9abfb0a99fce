"""Every trial runs to its end."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config import Objective
from orchestrator.search.stopping.rule import Judgment
from orchestrator.search.stopping.rung import Rung


class NeverStop:
    """Judges no epoch."""

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return ()

    def bracket(self, number: int, num_epochs: int) -> int:
        return 0

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        return None

    def judge(self, number: int, rung: Rung) -> Judgment:
        return Judgment("go_on", "no rule stops trials")

    def promotable(self, rung: Rung) -> Sequence[int]:
        return ()
