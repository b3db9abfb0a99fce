"""Points from Optuna's samplers, decided from a fixed set of earlier points.

Ray's own ``OptunaSearch`` tells Optuna whatever finished first, stores early-stopped trials as
complete, leaves NaN trials running for ever and proposes the same points again after a restart.
Here point ``n`` depends only on the seed and on the trials up to ``n - lag``, and a restarted study
replays its proposals, so it goes on as if it had never stopped.

A new sampler is a name in :class:`orchestrator.config.SamplerConfig` and its case in
:func:`_kind`, which mypy asks for.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never, get_args

import numpy as np
import optuna
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from orchestrator.config import (
    CategoricalDistribution,
    Distribution,
    IntDistribution,
    Objective,
    SamplerName,
    Scalar,
    StudyConfig,
)
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals import grid
from orchestrator.search.proposals.proposer import Proposal
from orchestrator.search.search_space import Params, SearchSpace, in_order
from vitaclip.errors import InputError

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class OptunaSampler:
    """Asks Optuna for points 0, 1, 2, ... in order."""

    def __init__(self, config: StudyConfig) -> None:
        self.study = optuna.create_study(directions=directions(config.search.objectives))
        self._config = config
        self._kind = _kind(config.search.sampler.name)
        self._untold: deque[optuna.Trial] = deque()
        self._num_told = 0

    @property
    def max_trials(self) -> float:
        """Those of a grid have an end."""
        return grid.num_trials(self._config) if self._kind.is_grid else math.inf

    def check(self) -> None:
        if self._kind.is_grid:
            grid.check(self._config)
        num_objectives = len(self._config.search.objectives)
        if num_objectives > 1 and self._kind.has_one_objective:
            *names, last = (
                name for name in get_args(SamplerName) if not _kind(name).has_one_objective
            )
            raise InputError(
                f"search.sampler.name: found '{self._config.search.sampler.name}', which takes one "
                f"objective; allowed with {num_objectives} are {', '.join(names)} and {last}"
            )

    def num_settled(self, number: int) -> int:
        return max(0, number - self._config.search.lag + 1)

    def propose(
        self,
        point: int,
        tried: Sequence[Params],
        ended: Sequence[PointOutcome],
        wish: Mapping[str, Scalar] | None,
    ) -> Proposal:
        while (asked := self._num_told + len(self._untold)) < point:
            self._tell(ended[: self._num_ended_before(asked)])
            self._ask(tried[asked])
        self._tell(ended)
        return Proposal(self._ask(wish))

    def _num_ended_before(self, point: int) -> int:
        """How many points had certainly ended when this one was proposed."""
        num_repeats = self._config.search.num_repeats
        return self.num_settled(point * num_repeats) // num_repeats

    def _tell(self, outcomes: Sequence[PointOutcome]) -> None:
        """Tells how the first ``len(outcomes)`` points ended; those told before are skipped."""
        for outcome in outcomes[self._num_told :]:
            self._tell_one(self._untold.popleft(), outcome)
            self._num_told += 1

    def _tell_one(self, trial: optuna.Trial, outcome: PointOutcome) -> None:
        if outcome.state == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        elif outcome.state == "complete":
            self.study.tell(trial, outcome.values)
        else:
            for step, value in enumerate(outcome.curve if len(self.study.directions) == 1 else ()):
                trial.report(value, step)
            self.study.tell(trial, state=TrialState.PRUNED)

    def _ask(self, known: Mapping[str, Scalar] | None) -> Params:
        """The next point; ``known`` parameters are given."""
        number = self._num_told + len(self._untold)
        self.study.sampler = self._kind.make(self._config, _seed(self._config, number))
        if known is not None:
            self.study.enqueue_trial(dict(known))
        trial = self.study.ask()
        if self._kind.remembers_draws:
            # drawn even where every parameter is given, so that a replay counts alike
            _ = trial.relative_params
        self._untold.append(trial)
        return suggest_params(trial, self._config.search_space)


def directions(objectives: Iterable[Objective]) -> list[StudyDirection]:
    """What Optuna calls the directions of objectives."""
    return [
        StudyDirection.MAXIMIZE if objective.is_maximized else StudyDirection.MINIMIZE
        for objective in objectives
    ]


def suggest_params(trial: optuna.Trial, space: SearchSpace) -> Params:
    """One point: parameters whose ``when`` does not hold are left out."""
    params: Params = {}
    for key in in_order(space):
        if all(
            other in params and params[other] == value for other, value in space[key].when.items()
        ):
            params[key] = _suggest_one(trial, key, space[key])
    return params


def _suggest_one(trial: optuna.Trial, key: str, distribution: Distribution) -> Scalar:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    low, high, log = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, int(low), int(high), step=distribution.step, log=log)
    return trial.suggest_float(key, low, float(high), step=distribution.step, log=log)


def _seed(config: StudyConfig, point: int) -> int:
    """A point's random draws depend on the study's seed and the point's number alone."""
    return int(np.random.SeedSequence([config.search.seed, point]).generate_state(1)[0])


@dataclass(frozen=True)
class _Kind:
    """What is to know of one of Optuna's samplers."""

    make: Callable[[StudyConfig, int], BaseSampler]  # of a study and a point's seed
    remembers_draws: bool = False  # notes in Optuna's study what it has drawn
    has_one_objective: bool = False
    is_grid: bool = False


def _kind(name: SamplerName) -> _Kind:
    match name:
        case "tpe":
            return _Kind(_tpe)
        case "gp":
            return _Kind(_gp)
        case "cmaes":
            return _Kind(_cmaes, remembers_draws=True, has_one_objective=True)
        case "nsgaii":
            return _Kind(_nsgaii, remembers_draws=True)
        case "qmc":
            return _Kind(_qmc, remembers_draws=True)
        case "random":
            return _Kind(_random)
        case "grid":
            return _Kind(_grid, is_grid=True)
        case unknown:
            assert_never(unknown)


def _tpe(config: StudyConfig, seed: int) -> BaseSampler:
    return TPESampler(
        n_startup_trials=config.search.sampler.num_startup_trials,
        seed=seed,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def _gp(config: StudyConfig, seed: int) -> BaseSampler:
    return GPSampler(n_startup_trials=config.search.sampler.num_startup_trials, seed=seed)


def _cmaes(config: StudyConfig, seed: int) -> BaseSampler:
    startup = config.search.sampler.num_startup_trials
    return CmaEsSampler(n_startup_trials=startup, seed=seed, warn_independent_sampling=False)


def _nsgaii(config: StudyConfig, seed: int) -> BaseSampler:
    population = max(2, config.search.sampler.num_startup_trials)
    return NSGAIISampler(population_size=population, seed=seed)


def _qmc(config: StudyConfig, seed: int) -> BaseSampler:
    # a sequence: the same seed for all points
    return QMCSampler(scramble=True, seed=config.search.seed, warn_independent_sampling=False)


def _random(config: StudyConfig, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _grid(config: StudyConfig, seed: int) -> BaseSampler:
    return GridSampler(grid.values(config.search_space), seed=config.search.seed)
