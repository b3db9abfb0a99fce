"""Search spaces over the fields of a training config: checked, suggested by Optuna, applied."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import optuna
from pydantic import BaseModel, ValidationError

from orchestrator.config import (
    MAX_TRIALS,
    CategoricalDistribution,
    Distribution,
    FloatDistribution,
    IntDistribution,
    Scalar,
    StudyConfig,
)
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError, suggest

_ONE_OBJECTIVE = ("cmaes",)
Params = dict[str, Scalar]
SearchSpace = Mapping[str, Distribution]


def resolve(config: StudyConfig) -> StudyConfig:
    """Checks the search space against the training config and replaces ``num_layers`` by its
    number.

    Raises:
        InputError: a key is no field of the training config, or a value in its range is not allowed
            there.
    """
    space = {key: _resolve_layers(key, dist, config) for key, dist in config.search_space.items()}
    config = config.model_copy(update={"search_space": space})
    _check_conditions(space)
    if config.search.sampler.name == "grid":
        _check_grid(config)
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


def apply(train: TrainConfig, params: Mapping[str, Scalar]) -> TrainConfig:
    """``train`` with the dotted fields of ``params`` replaced, validated anew.

    Raises:
        InputError: the values do not make a valid training config.
    """
    values = train.model_dump(mode="json")
    for key, value in params.items():
        *path, name = key.split(".")
        fields = values
        for part in path:
            fields = fields[part]
        fields[name] = value
    try:
        return TrainConfig.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{first['msg'].removeprefix('Value error, ')} (with {_text(params)})"
        ) from None


def suggest_params(trial: optuna.Trial, space: SearchSpace) -> Params:
    """One point: parameters whose ``when`` does not hold are left out."""
    params: Params = {}
    for key in _in_order(space):
        if all(
            other in params and params[other] == value for other, value in space[key].when.items()
        ):
            params[key] = _suggest_one(trial, key, space[key])
    return params


def edge_values(distribution: Distribution) -> tuple[Scalar, ...]:
    """The values whose validity stands for the whole range: both ends, or every choice."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def field_names(model: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that a search space may name."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from field_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _suggest_one(trial: optuna.Trial, key: str, distribution: Distribution) -> Scalar:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    low, high, log = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, int(low), int(high), step=distribution.step, log=log)
    return trial.suggest_float(key, low, float(high), step=distribution.step, log=log)


def _in_order(space: SearchSpace) -> list[str]:
    """Keys with those they depend on before them, otherwise as the file has them."""
    ordered = list(
        TopologicalSorter({key: list(dist.when) for key, dist in space.items()}).static_order()
    )
    return sorted(ordered, key=lambda key: (_depth(key, space), list(space).index(key)))


def _depth(key: str, space: SearchSpace) -> int:
    return 1 + max((_depth(other, space) for other in space[key].when), default=0)


def _resolve_layers(key: str, distribution: Distribution, config: StudyConfig) -> Distribution:
    if not isinstance(distribution, IntDistribution) or distribution.high != "num_layers":
        return distribution
    if any(other.startswith("backbone.") for other in config.search_space):
        raise InputError(
            f"search_space.{key}.high: 'num_layers' needs one backbone, but the space varies it"
        )
    from vitaclip.model.backbone import num_layers  # takes seconds: it brings torch

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
            if not _contains(space[other], value):
                raise InputError(
                    f"search_space.{key}.when.{other}: {json.dumps(value)} is no value of '{other}'"
                )
    try:
        _in_order(space)
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
    if len(search.objectives) > 1 and search.sampler.name in _ONE_OBJECTIVE:
        raise InputError(
            f"search.sampler.name: found '{search.sampler.name}', which takes one objective; "
            "allowed with "
            f"{len(search.objectives)} are tpe, gp, nsgaii, qmc, random and grid"
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
    if _num_values(distribution) > MAX_TRIALS:
        raise InputError(
            f"search_space.batch_size: has {_num_values(distribution)} values, give it a step"
        )
    for workers in range(config.resources.min_workers, config.resources.max_workers + 1):
        if odd := [size for size in _grid_values(distribution) if int(str(size)) % workers]:
            raise InputError(
                f"search_space.batch_size: found {odd[0]}, allowed are multiples of every number "
                "of workers that "
                f"resources.num_workers allows, such as {workers}"
            )


def _check_grid(config: StudyConfig) -> None:
    for key, distribution in config.search_space.items():
        if isinstance(distribution, FloatDistribution) and distribution.step is None:
            raise InputError(f"search_space.{key}: a grid needs a step, or categorical choices")
        if distribution.when:
            raise InputError(
                f"search_space.{key}.when: a grid knows no conditions; take another sampler"
            )
    num_points = most_trials(config) // config.search.num_repeats
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
    if config.search.num_trials > most_trials(config):
        raise InputError(
            f"search.num_trials: found {config.search.num_trials}, the grid has "
            f"{most_trials(config):g} points "
            f"({config.search.num_repeats} repeats included)"
        )


def most_trials(config: StudyConfig) -> float:
    """How many trials the search can have: a grid's points with their repeats; with pbt, see
    ``max_trials``.
    """
    if config.search.sampler.name != "grid":
        return config.max_trials
    return math.prod(map(_num_values, config.search_space.values())) * config.search.num_repeats


def grid(space: SearchSpace) -> dict[str, list[Scalar]]:
    """Every value of each parameter; floats need a step to have finitely many."""
    return {key: _grid_values(distribution) for key, distribution in space.items()}


def _grid_values(distribution: Distribution) -> list[Scalar]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    step = distribution.step or 1.0
    return [distribution.low + index * step for index in range(_num_values(distribution))]


def _num_values(distribution: Distribution) -> int:
    """How many values a grid takes from it."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    span = float(distribution.high) - distribution.low
    return max(0, int(span / (distribution.step or 1.0) + 1e-9) + 1)


def check_point(place: str, point: Mapping[str, Scalar], config: StudyConfig) -> None:
    """Raises InputError unless every value of ``point`` lies in the search space, and training
    takes them together.
    """
    check_values(place, point, config)
    apply(config.train, point)


def check_values(place: str, point: Mapping[str, Scalar], config: StudyConfig) -> None:
    """Raises InputError unless every value of ``point`` lies in the search space."""
    for key, value in point.items():
        if key not in config.search_space:
            raise InputError(
                f"{place}: '{key}' is not in the search space{suggest(key, config.search_space)}"
            )
        if not _contains(config.search_space[key], value):
            raise InputError(
                f"{place}.{key}: found {json.dumps(value)}, which lies outside the search space"
            )


def _contains(distribution: Distribution, value: Scalar) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(
            value == choice and type(value) is type(choice) for choice in distribution.choices
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    whole = not isinstance(distribution, IntDistribution) or isinstance(value, int)
    return whole and distribution.low <= value <= float(distribution.high)


def _text(params: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in params.items())
