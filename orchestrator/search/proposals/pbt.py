"""Population-based training of the optimizer's settings (Jaderberg et al. 2017), generation by
generation.

Trial ``g * population + m`` is member ``m`` of generation ``g`` and trains ``interval`` epochs. It
goes on from the end of a trial of the generation before: that of the same member or, where this was
among the worst quarter, one of the best quarter's with its parameters perturbed. A generation is
proposed when all of the one before has ended, so that decisions depend on the record alone; Tune's
PBT compares with whatever happens to have been reported.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.config import FloatDistribution, Scalar, StudyConfig
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals.proposer import Proposal, Proposer
from orchestrator.search.search_space import Params
from vitaclip.errors import InputError

_FACTORS = (0.8, 1.2)
_RESAMPLE_PROBABILITY = 0.25


class PopulationBasedTraining:
    """Proposes generation after generation; ``first`` proposes the members of the first one."""

    def __init__(self, config: StudyConfig, first: Proposer) -> None:
        self._config = config
        self._first = first
        self._population = config.search.scheduler.population
        self._interval = config.search.scheduler.interval

    @property
    def max_trials(self) -> float:
        """Until the population has come to the last epoch."""
        return self._population * math.ceil(self._config.train.epochs / self._interval)

    def check(self) -> None:
        for key, distribution in self._config.search_space.items():
            if not (key.startswith("optimizer.") and isinstance(distribution, FloatDistribution)):
                raise InputError(
                    f"search_space.{key}: pbt changes parameters in mid-training; allowed are "
                    "floats of the optimizer, "
                    "such as optimizer.lr"
                )
            if distribution.step is not None or distribution.when:
                raise InputError(f"search_space.{key}: pbt takes neither step nor when")
        search = self._config.search
        if search.num_repeats > 1:
            raise InputError(
                "search.num_repeats: pbt allows 1; run the study again with another train.seed"
            )
        if search.num_trials > self.max_trials:
            raise InputError(
                f"search.num_trials: found {search.num_trials}; generations of "
                f"{self._population} "
                f"have come to the last epoch after {self.max_trials}"
            )
        self._first.check()

    def num_settled(self, number: int) -> int:
        return number - number % self._population

    def propose(
        self,
        tried: Sequence[Params],
        outcomes: Sequence[PointOutcome],
        wish: Mapping[str, Scalar] | None,
    ) -> Proposal:
        point = len(tried)
        generation = point // self._population
        if generation == 0:
            proposal = self._first.propose(tried, outcomes, wish)
        else:
            start = (generation - 1) * self._population
            parents = slice(start, start + self._population)
            proposal = self._descend(point, tried[parents], outcomes[parents])
        stop_epoch = min((generation + 1) * self._interval, self._config.train.epochs)
        return replace(proposal, stop_epoch=stop_epoch)

    def recall(self, outcomes: Sequence[PointOutcome], params: Params) -> None:
        if len(outcomes) < self._population:
            self._first.recall(outcomes, params)

    def _descend(
        self, number: int, params: Sequence[Params], outcomes: Sequence[PointOutcome]
    ) -> Proposal:
        """The parent and the parameters of a trial of a later generation.

        Args:
            number: the trial's.
            params: of the generation before, by member.
            outcomes: how its trials ended, by member.

        Returns:
            a proposal without a parent if every trial of the generation before has failed.
        """
        member = number % self._population
        first = number - member - self._population
        ranked = self._best_first(outcomes)
        quarter = max(1, self._population // 4)
        surviving = ranked[: self._population - quarter]
        if member in surviving or not ranked:
            return Proposal(params[member], parent=first + member if ranked else None)
        rng = random.Random(f"{self._config.search.seed} {number}")
        parent = rng.choice(ranked[:quarter])
        return Proposal(self._perturb(params[parent], rng), parent=first + parent)

    def _best_first(self, outcomes: Sequence[PointOutcome]) -> list[int]:
        """The members that have not failed."""
        gain = self._config.search.objectives[0].gain
        gains = {
            member: gain(outcome.values[0])
            for member, outcome in enumerate(outcomes)
            if outcome.values
        }
        return sorted(gains, key=lambda member: (-gains[member], member))

    def _perturb(self, params: Params, rng: random.Random) -> Params:
        """Each parameter a fifth up or down, or drawn anew."""
        changed: Params = {}
        for key, value in params.items():
            distribution = self._config.search_space[key]
            assert isinstance(distribution, FloatDistribution)
            assert isinstance(value, int | float)
            if rng.random() < _RESAMPLE_PROBABILITY:
                changed[key] = _draw(distribution, rng)
            else:
                moved = value * rng.choice(_FACTORS)
                changed[key] = min(max(moved, distribution.low), distribution.high)
        return changed


def _draw(distribution: FloatDistribution, rng: random.Random) -> float:
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return rng.uniform(low, high)
