"""What a grid asks of a search space: finitely many points, each with every parameter."""

from __future__ import annotations

import math

from orchestrator.config import MAX_TRIALS, FloatDistribution, Scalar, StudyConfig
from orchestrator.search.search_space import SearchSpace, listed_values, num_values
from vitaclip.errors import InputError


def values(space: SearchSpace) -> dict[str, list[Scalar]]:
    """Every value of each parameter."""
    return {key: listed_values(distribution) for key, distribution in space.items()}


def num_trials(config: StudyConfig) -> int:
    """How many trials the whole grid takes, with its repeats."""
    return math.prod(map(num_values, config.search_space.values())) * config.search.num_repeats


def check(config: StudyConfig) -> None:
    """Raises InputError unless the space is a grid that the study's trials fit into."""
    for key, distribution in config.search_space.items():
        if isinstance(distribution, FloatDistribution) and distribution.step is None:
            raise InputError(f"search_space.{key}: a grid needs a step, or categorical choices")
        if distribution.when:
            raise InputError(
                f"search_space.{key}.when: a grid knows no conditions; take another sampler"
            )
    most = num_trials(config)
    num_points = most // config.search.num_repeats
    if num_points > MAX_TRIALS:
        raise InputError(
            f"search_space: the grid has {num_points:.3g} points, allowed are up to {MAX_TRIALS}"
        )
    for index, point in enumerate(config.search.first_points):
        if lacking := [key for key in config.search_space if key not in point]:
            raise InputError(
                f"search.first_points.{index}: lacks {', '.join(lacking)}; a grid's points have "
                "every parameter"
            )
    if config.search.num_trials > most:
        raise InputError(
            f"search.num_trials: found {config.search.num_trials}, the grid has "
            f"{most:g} points "
            f"({config.search.num_repeats} repeats included)"
        )
