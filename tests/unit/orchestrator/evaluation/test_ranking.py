"""Which value, which trial and which points are better than others."""

from __future__ import annotations

from orchestrator.config import Objective
from orchestrator.evaluation.ranking import pareto_front


def test_an_objective_knows_which_value_is_better() -> None:
    most, least = Objective(mode="max"), Objective(mode="min")
    assert (most.best([0.1, 0.3, 0.2]), least.best([0.1, 0.3, 0.2])) == (0.3, 0.1)
    assert most.better(0.3, 0.1)
    assert least.better(0.1, 0.3)
    for objective in (most, least):
        assert not objective.better(0.1, 0.1)
        assert objective.best([]) is None


def test_pareto_front_is_what_nothing_beats() -> None:
    points = {
        0: (0.1, 0.9),
        1: (0.5, 0.5),
        2: (0.4, 0.4),
        3: (0.9, 0.1),
        4: (0.5, 0.5),
        5: (0.05, 0.9),
    }
    assert pareto_front(points) == [0, 1, 4, 3]  # from left to right
