"""How far the best point of a search is from the optimum: TPE in this project, and asynchronous TPE
of Optuna with the same settings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from benchmarks.search.functions import Function, functions
from benchmarks.search.slots import Search, Verdict, run
from benchmarks.search.this_project import OURS, ThisProject, config_of
from orchestrator.config import StudyConfig
from orchestrator.search.proposals.optuna_sampler import suggest_params
from orchestrator.search.search_space import Params

SLOTS = 8
NUM_TRIALS = 64
FIGURES = {"after half of the trials": NUM_TRIALS // 2, "after all": NUM_TRIALS}
SIGMA = 0.5  # of the trials' times, which are lognormal
REFERENCE = "Optuna TPE, asynchronous"

Key = tuple[str, str]  # which function, which search


class PointSearch(Search, Protocol):
    """A search that says what it tries."""

    def params(self, number: int) -> Params:
        """The point of a trial that was begun."""


def measure(seed: int) -> dict[Key, dict[str, float]]:
    """The regret of every search on every function, after half of the trials and after all."""
    times = np.random.default_rng(seed).lognormal(0, SIGMA, NUM_TRIALS)
    found: dict[Key, dict[str, float]] = {}
    for function_name, function in functions().items():
        for name, make in searches(function, seed).items():
            values = _values(make(), function, lambda number: float(times[number]))
            found[function_name, name] = {
                figure: function.optimum - max(values[:num_trials])
                for figure, num_trials in FIGURES.items()
            }
    return found


def searches(function: Function, seed: int) -> dict[str, Callable[[], PointSearch]]:
    """Each search's name, and how it is begun."""

    def study(**search: object) -> ThisProject:
        return ThisProject(_config(function, seed, **search))

    def optuna_search(sampler: BaseSampler) -> OptunaSearch:
        return OptunaSearch(sampler, _config(function, seed))

    startup = _config(function, seed).search.sampler.num_startup_trials
    tpe = TPESampler(
        n_startup_trials=startup, seed=seed, multivariate=True, group=True, constant_liar=True
    )
    return {
        OURS: study,
        f"{OURS}, lag {SLOTS}": partial(study, lag=SLOTS),
        REFERENCE: partial(optuna_search, tpe),
        "random points": partial(optuna_search, RandomSampler(seed=seed)),
    }


class OptunaSearch:
    """Optuna's ask and tell: a free slot asks, and whoever has finished has told."""

    def __init__(self, sampler: BaseSampler, config: StudyConfig) -> None:
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space = config.search_space
        self._num_trials = config.search.num_trials
        self._trials: list[optuna.Trial] = []
        self._params: list[Params] = []
        self._values: dict[int, float] = {}

    def next_trial(self) -> int | None:
        if len(self._trials) == self._num_trials:
            return None
        self._trials.append(self._study.ask())
        self._params.append(suggest_params(self._trials[-1], self._space))
        return len(self._trials) - 1

    def params(self, number: int) -> Params:
        return self._params[number]

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        self._values[number] = value
        return "go_on"

    def training_ended(self, number: int) -> None:
        self._study.tell(self._trials[number], self._values[number])


def _config(function: Function, seed: int, **search: object) -> StudyConfig:
    tpe = {"name": "tpe"}
    return config_of(
        NUM_TRIALS,
        1,
        SLOTS,
        {"seed": seed, "sampler": tpe} | search,
        search_space=function.space,
    )


def _values(
    search: PointSearch, function: Function, time_of: Callable[[int], float]
) -> list[float]:
    """What the points are worth, in the order in which they were begun."""
    run(search, SLOTS, 1, lambda number, _: function.value(search.params(number)), time_of)
    return [function.value(search.params(number)) for number in range(NUM_TRIALS)]
