"""The corners of a search space: what holds at all of them holds for every trial."""

from __future__ import annotations

import random
from collections.abc import Callable

from orchestrator.config import Scalar
from orchestrator.search.search_space import Params, SearchSpace, edge_values, in_order


def corners(space: SearchSpace, is_varied: Callable[[str], bool], *, most: int) -> list[Params]:
    """Points whose parameters all have an end of their range, any choice, or a value that the
    condition of another names.

    Args:
        space: the search space.
        is_varied: whether a parameter counts; those that its conditions name do, too.
        most: how many there may be; of more it is a sample, always the same.
    """
    points: list[Params] = [{}]
    wanted = _with_conditions(space, is_varied)
    for key in in_order(space):
        if key in wanted:
            points = [longer for point in points for longer in _extended(point, key, space)]
            points = points if len(points) <= most else random.Random(0).sample(points, most)
    return points


def _with_conditions(space: SearchSpace, is_varied: Callable[[str], bool]) -> set[str]:
    wanted: set[str] = set()
    for key in reversed(in_order(space)):
        if is_varied(key) or key in wanted:
            wanted |= {key, *space[key].when}
    return wanted


def _extended(point: Params, key: str, space: SearchSpace) -> list[Params]:
    """The point with each value of one more parameter, or as it is where the parameter does not
    exist.
    """
    conditions = space[key].when.items()
    if any(other not in point or point[other] != value for other, value in conditions):
        return [point]
    named = (other.when[key] for other in space.values() if key in other.when)
    values: dict[str, Scalar] = {repr(value): value for value in (*edge_values(space[key]), *named)}
    return [{**point, key: value} for value in values.values()]
