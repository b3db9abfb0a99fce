"""Hyperband (Li et al. 2018): successive halving that begins late for some of the trials."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.search.stopping.asha import Asha


class Hyperband(Asha):
    """As ASHA, with trials taking turns at a later first rung."""

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        num_skipped = number % len(self.rungs(num_epochs))
        return super().judged_epochs(number, num_epochs)[num_skipped:]
