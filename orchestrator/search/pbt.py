"""Population-based training of the optimiser's settings (Jaderberg et al. 2017), generation by
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
from collections.abc import Sequence

from orchestrator.config import FloatDistribution, Scalar, StudyConfig

_FACTORS = (0.8, 1.2)
_RESAMPLE_PROBABILITY = 0.25


def stop_epoch(config: StudyConfig, number: int) -> int:
    """The last epoch of a trial's generation."""
    scheduler = config.search.scheduler
    return min((number // scheduler.population + 1) * scheduler.interval, config.train.epochs)


def descend(
    config: StudyConfig,
    number: int,
    params: Sequence[dict[str, Scalar]],
    values: Sequence[float | None],
) -> tuple[int | None, dict[str, Scalar]]:
    """The parent and the parameters of a trial of a later generation.

    Args:
        params: of the generation before, by member.
        values: its objective, by member; None: failed.

    Returns:
        the parent's number, None if every trial of the generation before has failed; and the
        parameters.
    """
    population, sign = len(params), 1 if config.search.objectives[0].mode == "max" else -1
    member = number % population
    first = number - member - population
    whole = [one for one in range(population) if values[one] is not None]
    ranked = sorted(whole, key=lambda one: (-sign * (values[one] or 0.0), one))
    quarter = max(1, population // 4)
    surviving = ranked[: population - quarter]
    if member in surviving or not ranked:
        return (first + member if ranked else None), params[member]
    rng = random.Random(f"{config.search.seed} {number}")
    parent = rng.choice(ranked[:quarter])
    return first + parent, _perturb(params[parent], config, rng)


def _perturb(
    params: dict[str, Scalar], config: StudyConfig, rng: random.Random
) -> dict[str, Scalar]:
    """Each parameter a fifth up or down, or drawn anew."""
    changed = {}
    for key, value in params.items():
        distribution = config.search_space[key]
        assert isinstance(distribution, FloatDistribution)
        assert isinstance(value, int | float)
        if rng.random() < _RESAMPLE_PROBABILITY:
            changed[key] = _draw(distribution, rng)
        else:
            moved = value * rng.choice(_FACTORS)
            changed[key] = min(max(moved, distribution.low), distribution.high)
    return {**params, **changed}


def _draw(distribution: FloatDistribution, rng: random.Random) -> float:
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    return rng.uniform(low, high)
