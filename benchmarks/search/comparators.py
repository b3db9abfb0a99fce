"""Ray Tune's and Optuna's rules that stop trials early, as searches: their own classes decide."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import RandomSampler
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from benchmarks.search.slots import Verdict


class _InOrder:
    """Starts trials 0, 1, 2, ... and pauses none."""

    def __init__(self, num_trials: int) -> None:
        self._numbers = iter(range(num_trials))

    def next_trial(self) -> int | None:
        return next(self._numbers, None)

    def training_ended(self, number: int) -> None:
        """The rule was told of each epoch."""


class Greedy(_InOrder):
    """Greedy asynchronous: a free slot gets the next trial, and every trial runs to its end."""

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        return "go_on"


class _RayTrial:
    """What Ray's scheduler reads of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


class RayAsha(_InOrder):
    """``ASHAScheduler``: a trial stops at a rung below the quantile of those that reached it."""

    def __init__(self, num_trials: int, num_epochs: int, reduction_factor: int) -> None:
        super().__init__(num_trials)
        self._scheduler: Any = ASHAScheduler(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=num_epochs,
            grace_period=1,
            reduction_factor=reduction_factor,
        )
        self._trials = [_RayTrial(number) for number in range(num_trials)]

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        trial, result = self._trials[number], {"epoch": epoch, "value": value}
        if epoch == 1:
            self._scheduler.on_trial_add(None, trial)
        action = self._scheduler.on_trial_result(None, trial, result)
        return "stop" if action == TrialScheduler.STOP else "go_on"


class OptunaPruner(_InOrder):
    """``SuccessiveHalvingPruner``, asked after every epoch."""

    def __init__(self, num_trials: int, reduction_factor: int) -> None:
        super().__init__(num_trials)
        self._study = optuna.create_study(
            direction="maximize",
            sampler=RandomSampler(),
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=reduction_factor),
        )
        self._trials: dict[int, optuna.Trial] = {}

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        if number not in self._trials:
            self._trials[number] = self._study.ask()
        trial = self._trials[number]
        trial.report(value, epoch)
        return "stop" if trial.should_prune() else "go_on"
