"""Proposals: which point a study tries next, decided by Optuna from a fixed set of earlier trials.

Ray's own ``OptunaSearch`` tells Optuna whatever finished first, stores early-stopped trials as
complete, leaves NaN trials running for ever and proposes the same points again after a restart.
Here point ``n`` depends only on the seed and on the trials up to ``n - lag``, and a restarted study
replays its proposals, so it goes on as if it had never stopped.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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

from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.search_space import Params, grid, suggest_params

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

# samplers that note in Optuna's study what they have drawn
_REMEMBERING = (
    "cmaes",
    "nsgaii",
    "qmc",
)


@dataclass(frozen=True)
class PointOutcome:
    """What the sampler is told of a point."""

    state: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...] = ()  # complete: one for each objective
    curve: tuple[float, ...] = ()  # pruned: the first objective after each epoch


class Proposer:
    """Asks Optuna for points 0, 1, 2, ... in order."""

    def __init__(self, config: StudyConfig) -> None:
        directions = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        self.study = optuna.create_study(
            directions=[directions[o.mode] for o in config.search.objectives]
        )
        self._config = config
        self._untold: deque[optuna.Trial] = deque()
        self._num_told = 0

    @property
    def num_asked(self) -> int:
        return self._num_told + len(self._untold)

    def tell(self, outcomes: Sequence[PointOutcome]) -> None:
        """Tells how the first ``len(outcomes)`` points ended; those told before are skipped."""
        for outcome in outcomes[self._num_told :]:
            self._tell(self._untold.popleft(), outcome)
            self._num_told += 1

    def ask(self, known: Mapping[str, Scalar] | None = None) -> Params:
        """The next point; ``known`` parameters are given (by the record, or as a point to try
        first).
        """
        self.study.sampler = make_sampler(self._config, self.num_asked)
        if known is not None:
            self.study.enqueue_trial(dict(known))
        trial = self.study.ask()
        if self._config.search.sampler.name in _REMEMBERING:
            # drawn even where every parameter is given, so that a replay counts alike
            _ = trial.relative_params
        self._untold.append(trial)
        return suggest_params(trial, self._config.search_space)

    def _tell(self, trial: optuna.Trial, outcome: PointOutcome) -> None:
        if outcome.state == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        elif outcome.state == "complete":
            self.study.tell(trial, outcome.values)
        else:
            for step, value in enumerate(outcome.curve if len(self.study.directions) == 1 else ()):
                trial.report(value, step)
            self.study.tell(trial, state=TrialState.PRUNED)


def make_sampler(config: StudyConfig, number: int) -> BaseSampler:
    """The sampler for point ``number``: its random draws depend on the study's seed and the number
    alone.
    """
    seed = int(np.random.SeedSequence([config.search.seed, number]).generate_state(1)[0])
    startup = config.search.sampler.num_startup_trials
    match config.search.sampler.name:
        case "tpe":
            return TPESampler(
                n_startup_trials=startup,
                seed=seed,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        case "gp":
            return GPSampler(n_startup_trials=startup, seed=seed)
        case "cmaes":
            return CmaEsSampler(
                n_startup_trials=startup, seed=seed, warn_independent_sampling=False
            )
        case "nsgaii":
            return NSGAIISampler(population_size=max(2, startup), seed=seed)
        case "qmc":  # a sequence: the same seed for all points
            return QMCSampler(
                scramble=True, seed=config.search.seed, warn_independent_sampling=False
            )
        case "grid":
            return GridSampler(grid(config.search_space), seed=config.search.seed)
        case "random":
            return RandomSampler(seed=seed)
