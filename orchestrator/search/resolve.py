"""Everything about a study's search that can be checked before a trial is proposed."""

from __future__ import annotations

import itertools
import json
from graphlib import CycleError

from orchestrator.config import (
    MAX_TRIALS,
    CategoricalDistribution,
    Distribution,
    IntDistribution,
    Scalar,
    StudyConfig,
)
from orchestrator.search.proposals import proposer_of
from orchestrator.search.search_space import (
    SearchSpace,
    apply,
    check_point,
    contains,
    edge_values,
    field_names,
    in_order,
    listed_values,
    num_values,
)
from vitaclip.clip_config import num_layers
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError, suggest


def resolve(config: StudyConfig) -> StudyConfig:
    """Checks the search space against the training config, replaces ``num_layers`` by its number,
    and binds benchmarks to the descriptions that their files hold.

    Raises:
        InputError: a key is no field of the training config, a value in its range is not allowed
            there, or a file of descriptions cannot be read.
    """
    space = {key: _resolve_layers(key, dist, config) for key, dist in config.search_space.items()}
    benchmarks = tuple(benchmark.pinned() for benchmark in config.benchmarks)
    config = config.model_copy(update={"search_space": space, "benchmarks": benchmarks})
    _check_conditions(space)
    proposer_of(config).check()
    for key, distribution in space.items():
        _check_key(key)
        _check_range(key, distribution)
        for value in edge_values(distribution):
            _check_value(f"search_space.{key}", key, value, config.train)
    for index, point in enumerate(config.search.first_points):
        check_point(f"search.first_points.{index}", point, config)
    _check_objectives(config)
    _check_batch_sizes(config)
    return config


def _resolve_layers(key: str, distribution: Distribution, config: StudyConfig) -> Distribution:
    if not isinstance(distribution, IntDistribution) or distribution.high != "num_layers":
        return distribution
    if any(other.startswith("backbone.") for other in config.search_space):
        raise InputError(
            f"search_space.{key}.high: 'num_layers' needs one backbone, but the space varies it"
        )
    return distribution.model_copy(update={"high": num_layers(config.train.backbone)})


def _check_key(key: str) -> None:
    names = list(field_names())
    if key not in names:
        raise InputError(
            f"search_space.{key}: the training config has no such field{suggest(key, names)}"
        )


def _check_range(key: str, distribution: Distribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        if len(set(map(repr, distribution.choices))) < len(distribution.choices):
            raise InputError(
                f"search_space.{key}: found {list(distribution.choices)}, each choice may stand "
                "once"
            )
        return
    low, high = distribution.low, float(distribution.high)
    if low > high:
        raise InputError(f"search_space.{key}: found low {low} above high {distribution.high}")
    if distribution.log and low <= 0:
        raise InputError(f"search_space.{key}: found low {low}, a log scale allows numbers above 0")
    if distribution.log and distribution.step not in (None, 1):
        raise InputError(f"search_space.{key}: found step and log, allowed is one of them")


def _check_value(place: str, key: str, value: Scalar, train: TrainConfig) -> None:
    try:
        apply(train, {key: value})
    except InputError as error:
        raise InputError(
            f"{place}: found {json.dumps(value)}, which {key} does not take: {error}"
        ) from None


def _check_conditions(space: SearchSpace) -> None:
    for key, distribution in space.items():
        for other, value in distribution.when.items():
            if other not in space:
                raise InputError(
                    f"search_space.{key}.when: '{other}' is not in the search "
                    f"space{suggest(other, space)}"
                )
            if not contains(space[other], value):
                raise InputError(
                    f"search_space.{key}.when.{other}: {json.dumps(value)} is no value of '{other}'"
                )
    try:
        in_order(space)
    except CycleError as error:
        raise InputError(
            f"search_space: conditions go round in a circle: {' -> '.join(error.args[1])}"
        ) from None


def _check_objectives(config: StudyConfig) -> None:
    search, reported = config.search, _reported_metrics(config)
    for index, objective in enumerate(search.objectives):
        if objective.metric not in reported:
            raise InputError(
                f"search.objectives.{index}.metric: found "
                f"'{objective.metric}'{suggest(objective.metric, reported)}, "
                f"allowed are the metrics of training: {', '.join(reported)}"
            )


def _reported_metrics(config: StudyConfig) -> list[str]:
    """Names of the metrics that every trial reports, whatever the space draws."""
    keys = [key for key in ("epochs", "data.development") if key in config.search_space]
    found = [
        apply(config.train, dict(zip(keys, values, strict=True))).metrics
        for values in itertools.product(*(edge_values(config.search_space[key]) for key in keys))
    ]
    return [name for name in found[0] if all(name in names for names in found)]


def _check_batch_sizes(config: StudyConfig) -> None:
    """Workers share a batch evenly."""
    distribution = config.search_space.get("batch_size")
    if distribution is None:
        return
    if num_values(distribution) > MAX_TRIALS:
        raise InputError(
            f"search_space.batch_size: has {num_values(distribution)} values, give it a step"
        )
    for workers in range(config.resources.min_workers, config.resources.max_workers + 1):
        if odd := [size for size in listed_values(distribution) if int(str(size)) % workers]:
            raise InputError(
                f"search_space.batch_size: found {odd[0]}, allowed are multiples of every number "
                "of workers that "
                f"resources.num_workers allows, such as {workers}"
            )
