"""Search spaces over the fields of a training config: what lies in them, and what a point of
them makes of the config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter

from pydantic import BaseModel, ValidationError

from orchestrator.config import (
    CategoricalDistribution,
    Distribution,
    IntDistribution,
    Scalar,
    StudyConfig,
)
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError, suggest

Params = dict[str, Scalar]
SearchSpace = Mapping[str, Distribution]


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


def edge_values(distribution: Distribution) -> tuple[Scalar, ...]:
    """The values whose validity stands for the whole range: both ends, or every choice."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return (distribution.low, distribution.high)


def listed_values(distribution: Distribution) -> list[Scalar]:
    """Every value, in steps of 1 where no step is given."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    step = distribution.step or 1.0
    return [distribution.low + index * step for index in range(num_values(distribution))]


def num_values(distribution: Distribution) -> int:
    """How many values :func:`listed_values` has."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    span = float(distribution.high) - distribution.low
    return max(0, int(span / (distribution.step or 1.0) + 1e-9) + 1)


def field_names(model: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that a search space may name."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from field_names(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def in_order(space: SearchSpace) -> list[str]:
    """Keys with those they depend on before them, otherwise as the file has them."""
    ordered = list(
        TopologicalSorter({key: list(dist.when) for key, dist in space.items()}).static_order()
    )
    return sorted(ordered, key=lambda key: (_depth(key, space), list(space).index(key)))


def _depth(key: str, space: SearchSpace) -> int:
    return 1 + max((_depth(other, space) for other in space[key].when), default=0)


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
        if not contains(config.search_space[key], value):
            raise InputError(
                f"{place}.{key}: found {json.dumps(value)}, which lies outside the search space"
            )


def contains(distribution: Distribution, value: Scalar) -> bool:
    """Whether a parameter may have this value."""
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
