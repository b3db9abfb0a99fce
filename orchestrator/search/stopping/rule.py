"""Stopping hopeless trials early.

An asynchronous study judges a trial when it gets to a rung, against all that has been reported
there by then, and writes down what it decides before the trial is told. With ``search.lag`` a trial
gets thresholds when it is proposed: the values it must have reached after certain epochs to go on,
computed from the trials up to ``number - lag``. Those are the same in every run of a seeded study.

In both cases the trial ends itself; no actor is killed from outside (the way on which Ray leaks
workers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from orchestrator.config import Objective
from orchestrator.search.stopping.rung import Rung

History = Sequence[dict[str, float]]
# the first objective after epochs 1, 2, ...; NaN where it was not reported
Curve = tuple[float, ...]


class Judgment(NamedTuple):
    """What a trial does at a rung, and why."""

    kind: Literal["go_on", "pause", "stop"]
    why: str


class StoppingRule(Protocol):
    """After which epochs a trial is judged, and how."""

    def judged_epochs(self, number: int, num_epochs: int) -> Sequence[int]:
        """Epochs before the last after which trial ``number`` may have to stop, in order."""

    def bracket(self, number: int, num_epochs: int) -> int:
        """Trials are compared within their bracket."""

    def threshold(self, values: Sequence[float], objective: Objective) -> float | None:
        """What a trial must have reached at an epoch, given the best values up to it of the earlier
        trials that came as far; None: too few came to say.
        """

    def judge(self, number: int, rung: Rung) -> Judgment:
        """What a trial does that has just come to a rung, where it is among ``rung.reached``."""

    def promotable(self, rung: Rung) -> Sequence[int]:
        """Trials that may go on from a rung and have not, best first, whether or not they are
        paused.
        """


def thresholds(
    rule: StoppingRule,
    objective: Objective,
    number: int,
    num_epochs: int,
    earlier: Sequence[Curve],
) -> dict[int, float]:
    """Epoch -> the objective that a trial must have reached by then to go on.

    Args:
        rule: which epochs count, and how much is asked there.
        objective: the study's first.
        number: the trial's.
        num_epochs: of a whole training.
        earlier: the curves of the trials that this one may depend on.
    """
    found = {}
    for epoch in rule.judged_epochs(number, num_epochs):
        bests = (_best_until(curve, epoch, objective) for curve in earlier)
        value = rule.threshold([best for best in bests if best is not None], objective)
        if value is not None:
            found[epoch] = value
    return found


def misses_threshold(
    history: History, thresholds: Mapping[int, float], objective: Objective
) -> bool:
    """Whether a trial must stop after its last epoch."""
    epoch = int(history[-1]["epoch"])
    best = _best_until(curve(history, objective), epoch, objective)
    if epoch not in thresholds or best is None:
        return False
    return objective.better(thresholds[epoch], best)


def explain_miss(
    rule_name: str, history: History, thresholds: Mapping[int, float], objective: Objective
) -> str:
    """Why a trial that misses its threshold stops after its last epoch, in one line.

    Args:
        rule_name: as the study's file names the stopping rule.
        history: the trial's, up to the epoch after which it stops.
        thresholds: the trial's, by epoch.
        objective: the study's first.
    """
    epoch = int(history[-1]["epoch"])
    best = _best_until(curve(history, objective), epoch, objective)
    return (
        f"{rule_name}: the best {objective.metric} up to epoch {epoch} was {best:.4g}, "
        f"the threshold there is {thresholds[epoch]:.4g}"
    )


def curve(history: History, objective: Objective) -> Curve:
    """The objective alone."""
    return tuple(metrics.get(objective.metric, math.nan) for metrics in history)


def _best_until(curve: Curve, epoch: int, objective: Objective) -> float | None:
    """The best objective up to ``epoch``; None if the trial never came so far."""
    reported = curve[:epoch] if len(curve) >= epoch else ()
    return objective.best(value for value in reported if not math.isnan(value))
