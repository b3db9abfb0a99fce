"""Hyperband (Li et al. 2018): successive halving that begins late for some of the trials."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.search.stopping.asha import Asha


class Hyperband(Asha):
    """As ASHA, with trials taking turns at a later first rung. Asynchronously, a trial is compared
    with those of its own bracket: those that began to be judged at the same rung.
    """

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        return super().judged_epochs(number, num_epochs)[self.bracket(number, num_epochs) :]

    def bracket(self, number: int, num_epochs: int) -> int:
        return number % len(self.rungs(num_epochs))
