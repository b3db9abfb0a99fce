"""Rules that stop trials early: what they ask of a trial, given the curves of earlier ones."""

from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.config import Objective, SchedulerConfig
from orchestrator.search.stopping import stopping_rule
from orchestrator.search.stopping.rule import Curve, misses_threshold, thresholds
from testing.study_fixtures import history_of

MAX_TOP1 = Objective()


def found(
    config: SchedulerConfig,
    objective: Objective,
    number: int,
    num_epochs: int,
    earlier: list[Curve],
) -> dict[int, float]:
    return thresholds(stopping_rule(config), objective, number, num_epochs, earlier)


def curves(*finals: float) -> list[Curve]:
    return [tuple(final * epoch / 9 for epoch in range(1, 10)) for final in finals]


def test_asha_keeps_the_best_third_at_each_rung() -> None:
    config = SchedulerConfig(name="asha", grace_period=1, reduction_factor=3)
    earlier = curves(0.9, 0.6, 0.3, 0.2, 0.1, 0.8)
    rungs = found(config, MAX_TOP1, 7, 9, earlier)
    assert rungs == {1: pytest.approx(0.8 / 9), 3: pytest.approx(0.8 / 3)}
    assert misses_threshold(history_of(0.05), rungs, MAX_TOP1)
    assert not misses_threshold(history_of(0.1), rungs, MAX_TOP1)
    assert not misses_threshold(history_of(0.1, 0.1), rungs, MAX_TOP1)


def test_thresholds_need_enough_earlier_trials_and_turn_round_for_losses() -> None:
    config = SchedulerConfig(name="asha", reduction_factor=3)
    assert found(config, MAX_TOP1, 1, 9, curves(0.9, 0.6)) == {}
    least = Objective(mode="min")
    rungs = found(config, least, 3, 4, curves(0.9, 0.6, 0.3))
    assert rungs[1] == pytest.approx(0.3 / 9)
    assert misses_threshold(history_of(0.5), rungs, least)


def test_median_and_hyperband() -> None:
    median = SchedulerConfig(name="median", grace_period=2)
    assert list(found(median, MAX_TOP1, 3, 4, curves(0.9, 0.6, 0.3))) == [2, 3]
    hyperband = SchedulerConfig(name="hyperband", reduction_factor=3)
    rungs = [
        list(found(hyperband, MAX_TOP1, number, 9, curves(0.9, 0.6, 0.3))) for number in (0, 1)
    ]
    assert rungs == [[1, 3], [3]]


@pytest.mark.parametrize("name", get_args(SchedulerConfig.model_fields["name"].annotation))
def test_every_rule_judges_epochs_before_the_last_in_order(name: str) -> None:
    rule = stopping_rule(SchedulerConfig.model_validate({"name": name, "grace_period": 2}))
    for number in range(5):
        for num_epochs in range(1, 30):
            judged = list(rule.judged_epochs(number, num_epochs))
            assert judged == sorted(set(judged))
            assert all(2 <= epoch < num_epochs for epoch in judged)
