"""Points from Optuna's samplers, decided from a fixed set of earlier points.

Ray's own ``OptunaSearch`` tells Optuna whatever finished first, stores early-stopped trials as
complete, leaves NaN trials running for ever and proposes the same points again after a restart.
Here a point depends on the seed, its number and what the study says that it may depend on, and a
restarted study recalls its proposals, so it goes on as if it had never stopped.

A new sampler is a name in :class:`orchestrator.config.SamplerConfig` and its case in
:func:`_kind`, which mypy asks for.
"""

from __future__ import annotations

import math
import warnings
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
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

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

_STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class OptunaSampler:
    """Asks Optuna for points 0, 1, 2, ... in order."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._kind = _kind(config.search.sampler.name)
        self._told: list[PointOutcome] = []  # of every point that was asked for
        self._storage, self.study = self._new_study()

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
        lag = self._config.search.lag
        return 0 if lag is None else max(0, number - lag + 1)

    def propose(
        self,
        tried: Sequence[Params],
        outcomes: Sequence[PointOutcome],
        wish: Mapping[str, Scalar] | None,
    ) -> Proposal:
        self._tell(outcomes)
        return Proposal(self._ask(wish))

    def recall(self, outcomes: Sequence[PointOutcome], params: Params) -> None:
        self._tell(outcomes)
        self._ask(params)

    def _tell(self, outcomes: Sequence[PointOutcome]) -> None:
        """Makes Optuna know how its trials stand, as ``outcomes`` says."""
        changed = [
            number
            for number, (before, now) in enumerate(zip(self._told, outcomes, strict=True))
            if before != now
        ]
        if any(self._told[number].state != "running" for number in changed):
            # a trial that was paused goes on: for Optuna an ended trial never does
            self._begin_again(outcomes)
        else:
            for number in changed:
                self._end(number, outcomes[number])
        self._told = list(outcomes)

    def _end(self, number: int, outcome: PointOutcome) -> None:
        if outcome.state == "failed":
            self.study.tell(number, state=TrialState.FAIL)
        elif outcome.state == "complete":
            self.study.tell(number, outcome.values)
        else:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(0, number)
            for step, value in self._intermediate_values(outcome).items():
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            self.study.tell(number, state=TrialState.PRUNED)

    def _intermediate_values(self, outcome: PointOutcome) -> dict[int, float]:
        """Optuna's samplers know how to use those of one objective."""
        return dict(enumerate(outcome.curve)) if len(self.study.directions) == 1 else {}

    def _new_study(self) -> tuple[InMemoryStorage, optuna.Study]:
        storage = InMemoryStorage()
        objectives = directions(self._config.search.objectives)
        return storage, optuna.create_study(storage=storage, directions=objectives)

    def _begin_again(self, outcomes: Sequence[PointOutcome]) -> None:
        """A new study in Optuna: the same trials, and what the sampler has noted of them."""
        trials, noted = self.study.get_trials(), self._storage.get_study_system_attrs(0)
        self._storage, self.study = self._new_study()
        for key, value in noted.items():
            self._storage.set_study_system_attr(0, key, value)
        for trial, outcome in zip(trials, outcomes, strict=True):
            self.study.add_trial(self._as_it_stands(trial, outcome))

    def _as_it_stands(self, trial: FrozenTrial, outcome: PointOutcome) -> FrozenTrial:
        pruned = outcome.state == "pruned"
        return optuna.create_trial(
            state=_STATES[outcome.state],
            values=outcome.values if outcome.state == "complete" else None,
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=trial.system_attrs,
            intermediate_values=self._intermediate_values(outcome) if pruned else {},
        )

    def _ask(self, known: Mapping[str, Scalar] | None) -> Params:
        """The next point; ``known`` parameters are given."""
        self.study.sampler = self._kind.make(self._config, _seed(self._config, len(self._told)))
        if known is not None:
            self.study.enqueue_trial(dict(known))
        trial = self.study.ask()
        if self._kind.remembers_draws:
            # drawn even where every parameter is given, so that a replay counts alike
            _ = trial.relative_params
        self._told.append(PointOutcome("running"))
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
