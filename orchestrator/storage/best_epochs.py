"""Which epochs of a training were best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.config import Objective
from vitaclip.errors import InputError


def best_epoch(history: Sequence[Mapping[str, float]], objective: Objective) -> int:
    """The epoch with the best objective. Raises InputError as :func:`best_epochs` does."""
    return best_epochs(history, objective)[0]


def best_epochs(history: Sequence[Mapping[str, float]], objective: Objective) -> list[int]:
    """Epochs by their objective, best first; the earliest of equals first; those with NaN are left
    out.

    Raises:
        InputError: no epoch reported the objective's metric.
    """
    known = [
        metrics for metrics in history if not math.isnan(metrics.get(objective.metric, math.nan))
    ]
    if not known:
        found = ", ".join(sorted(history[-1])) if history else "no epoch"
        raise InputError(
            f"objective {objective.metric!r}: found {found}; name one of the metrics of training"
        )
    best_first = sorted(known, key=lambda metrics: -objective.gain(metrics[objective.metric]))
    return [int(metrics["epoch"]) for metrics in best_first]
