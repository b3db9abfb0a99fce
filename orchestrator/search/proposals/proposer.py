"""What a study asks of a way of proposing points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.config import Scalar
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.search_space import Params


@dataclass(frozen=True)
class Proposal:
    """A point to train, and where its training begins and ends."""

    params: Params
    parent: int | None = None  # the trial whose end it goes on from; None: it begins anew
    stop_epoch: int | None = None  # its last epoch; None: that of the training config


class Proposer(Protocol):
    """Proposes points 0, 1, 2, ... of one study.

    A proposal depends on the study's config and on the arguments of this and of all earlier calls
    alone, so a restarted study, which recalls those, goes on as if it had never stopped.
    """

    @property
    def max_trials(self) -> float:
        """How many trials the study can have; infinity if there is no limit."""

    def check(self) -> None:
        """Raises InputError if the study's space or objectives cannot be searched in this way."""

    def num_settled(self, number: int) -> int:
        """How many trials, counted from the first, must have ended before trial ``number`` is
        proposed.
        """

    def propose(
        self,
        tried: Sequence[Params],
        outcomes: Sequence[PointOutcome],
        wish: Mapping[str, Scalar] | None,
    ) -> Proposal:
        """Proposes the next point.

        Args:
            tried: the parameters of every point before it.
            outcomes: how these points stand, as far as the proposal may depend on it.
            wish: parameters that someone wants tried next; the others are the proposer's choice.
        """

    def recall(self, outcomes: Sequence[PointOutcome], params: Params) -> None:
        """Takes note of the next point, which was proposed before, when points stood so."""
