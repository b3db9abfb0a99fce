"""The benchmark of searches: slots in virtual time, and the searches that play on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from benchmarks.search import early_stopping
from benchmarks.search.comparators import Greedy
from benchmarks.search.curves import NUM_CURVES, make_curves
from benchmarks.search.functions import functions
from benchmarks.search.slots import Run, Verdict, run


class Scripted:
    """Hands out trials in a given order, and gives verdicts that were set before."""

    def __init__(
        self, order: Iterable[int | None], verdicts: dict[tuple[int, int], Verdict]
    ) -> None:
        self.order = iter(order)
        self.verdicts = verdicts
        self.ended: list[int] = []

    def next_trial(self) -> int | None:
        return next(self.order, None)

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        return self.verdicts.get((number, epoch), "go_on")

    def training_ended(self, number: int) -> None:
        self.ended.append(number)


def played(search: Scripted, slots: int) -> Run:
    return run(search, slots, 3, lambda number, epoch: 0.5)


def test_a_free_slot_gets_the_next_trial_at_once() -> None:
    times = [1.0, 4.0, 1.0, 1.0]
    done = run(Greedy(4), 2, 1, lambda number, epoch: 0.5, times.__getitem__)
    assert done.wall == 4
    assert done.slot_use == 7 / 8


def test_a_slot_that_finds_no_trial_stays_free() -> None:
    done = played(Scripted([0, None, None, None, 1], {}), slots=2)
    assert done.wall == 6
    assert done.slot_use == 0.5


def test_a_paused_trial_frees_its_slot_and_goes_on_after_the_epochs_it_has() -> None:
    search = Scripted([0, 1, 0], {(0, 1): "pause"})
    done = played(search, slots=1)
    assert done.epochs == {0: 3, 1: 3}
    assert done.wall == 6
    assert search.ended == [1, 0]


def test_a_stopped_trial_trains_no_more() -> None:
    search = Scripted([0, 1], {(0, 2): "stop"})
    assert played(search, slots=1).epochs == {0: 2, 1: 3}
    assert search.ended == [0, 1]


@pytest.mark.parametrize("slots", [1, 32])
def test_every_search_tries_every_curve_and_trains_few_to_the_end(slots: int) -> None:
    curves = make_curves(0, crossing=False)
    for name, make in early_stopping.searches(slots, pythons=()).items():
        figures = early_stopping.figures(make(), slots, curves, np.ones(NUM_CURVES))
        assert figures["epochs"] >= NUM_CURVES, name
        assert 0 < figures["to the end"] < NUM_CURVES, name


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Branin, 2 floats", [0.5427730, 0.1516667]),
        ("Hartmann, 6 floats", [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]),
    ],
)
def test_the_optimum_is_where_the_literature_has_it(name: str, place: Sequence[float]) -> None:
    function = functions()[name]
    lows = [field["low"] for field in function.space.values()]
    point = {key: low + value for key, low, value in zip(function.space, lows, place, strict=True)}
    assert function.value(point) == pytest.approx(function.optimum, abs=1e-4)
