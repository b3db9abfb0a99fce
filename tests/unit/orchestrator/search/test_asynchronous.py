"""Asynchronous studies: who gets the free slot, what is written before it is done, and that every
decision comes out again.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from orchestrator.config import SamplerName
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals.optuna_sampler import OptunaSampler
from orchestrator.search.replay import replay
from orchestrator.search.search_space import Params
from orchestrator.search.study import Study
from orchestrator.storage.journal import OtherDriverError, read_journal
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.verdicts import goes_on
from testing.study_fixtures import PROVENANCE, history_of, study_config
from testing.study_simulation import (
    ASYNCHRONOUS_SEARCHES,
    MemoryStore,
    SimulatedRecord,
    check_asynchronous,
)
from vitaclip.errors import InputError

ASHA = {"name": "asha", "reduction_factor": 3}


@pytest.mark.parametrize(
    "index",
    range(len(ASYNCHRONOUS_SEARCHES)),
    ids=[s["sampler"]["name"] for s in ASYNCHRONOUS_SEARCHES],
)
def test_under_crashes_each_decision_is_taken_once_and_comes_out_again(index: int) -> None:
    """A failing case replays with ``check_asynchronous(ASYNCHRONOUS_SEARCHES[index], index,
    interleaving)``.
    """
    simulations = [
        check_asynchronous(ASYNCHRONOUS_SEARCHES[index], index, interleaving)
        for interleaving in range(3)
    ]
    assert sum(simulation.num_crashes for simulation in simulations) > 3


class Slots:
    """An asynchronous study whose trainings are played by hand."""

    def __init__(self, epochs: int = 9, **search: Any) -> None:
        self.config = study_config(
            train={"epochs": epochs},
            search={"num_trials": 9, "lag": None, "sampler": {"name": "random"}} | search,
            benchmarks=[],
        )
        self.record = SimulatedRecord(MemoryStore(), self.config.name)
        self.record.create_or_check(self.config, PROVENANCE)
        self.study = self.restarted()
        self.reported: dict[int, list[float]] = {}

    def restarted(self) -> Study:
        study = Study(self.config, self.record)
        study.take_over()
        return study

    def next(self) -> int:
        trial = self.study.next_trial()
        assert isinstance(trial, TrialInfo), trial
        self.reported.setdefault(trial.number, [])
        return trial.number

    def report(self, number: int, *top1: float) -> str | None:
        """Further epochs of a running trial; what it does after the last of them."""
        verdict = None
        for value in top1:
            self.reported[number].append(value)
            history = history_of(*self.reported[number])
            self.record.train(number, history)
            verdict = self.study.epoch_ended(number, history[-1])
        if verdict in ("pause", "stop"):
            self.study.training_ended(number)
        return verdict


def test_a_free_slot_gets_a_new_trial_whatever_still_runs() -> None:
    slots = Slots()
    assert [slots.next() for _ in range(9)] == list(range(9))
    assert slots.study.next_trial() == "wait"


def test_a_paused_trial_is_promoted_when_it_is_among_the_best_third() -> None:
    slots = Slots(scheduler=ASHA)
    for value in (0.1, 0.5):
        assert slots.report(slots.next(), value) == "pause"
    # the third one makes room for one, and is not it
    third = slots.next()
    assert slots.report(third, 0.3) == "pause"
    assert slots.next() == 1
    assert slots.record.trial(1).info.judged_epochs == (1, 3)
    assert slots.report(1, 0.6, 0.7) == "pause"
    assert slots.next() == 3


def test_a_trial_that_is_among_the_best_third_goes_on_without_a_pause() -> None:
    slots = Slots(scheduler=ASHA)
    for value in (0.1, 0.2):
        slots.report(slots.next(), value)
    assert slots.report(slots.next(), 0.3) == "go_on"
    assert goes_on(slots.record, 2, epoch=1) is True
    assert goes_on(slots.record, 0, epoch=1) is False
    assert goes_on(slots.record, 2, epoch=3) is None


def test_the_highest_rung_is_promoted_first() -> None:
    slots = Slots(scheduler={"name": "asha", "reduction_factor": 2}, epochs=8)
    for number in [slots.next() for _ in range(4)]:
        slots.report(number, 0.4 - number / 10)
    assert [slots.next(), slots.next()] == [0, 1]
    others = [slots.next(), slots.next()]
    assert [slots.report(0, 0.4), slots.report(1, 0.35)] == ["pause", "pause"]
    assert [slots.report(number, 0.01) for number in others] == ["pause", "pause"]
    # both may go on: 0 after two epochs, 2 after one
    assert [slots.next(), slots.next()] == [0, 2]


@pytest.mark.parametrize(("num_good", "goes_on"), [(1, True), (0, False)])
def test_the_first_trials_are_those_of_the_first_numbers(num_good: int, goes_on: bool) -> None:
    """Paused trials have not ended, so failures among later ones may be the first to end."""
    slots = Slots(scheduler=ASHA, max_first_failures=2)
    for _ in range(num_good):
        assert slots.report(slots.next(), 0.5) == "pause"
    for _ in range(2):
        slots.study.training_ended(slots.next(), "InputError: no objective")
    assert (slots.study.stop_reason is None) == goes_on
    assert (slots.study.next_trial() is not None) == goes_on


def test_a_search_ends_with_a_whole_training_and_the_paused_are_pruned() -> None:
    slots = Slots(scheduler=ASHA, num_trials=2)
    for value in (0.1, 0.2):
        slots.report(slots.next(), value)
    assert slots.next() == 1
    assert slots.report(1, 0.3, 0.4) == "pause"
    assert slots.next() == 1
    assert slots.report(1, *[0.5] * 6) is None
    outcome = slots.study.training_ended(1)
    assert outcome is not None
    assert outcome.state == "complete"
    assert slots.study.next_trial() is None
    assert slots.study.end_search() == [0]
    assert slots.study.outcomes[0].state == "pruned"
    reason = "asha: rank 2 of 2 after epoch 1 when the search ended"
    assert slots.study.outcomes[0].reason == reason


def test_in_the_stopping_form_a_trial_ends_where_it_is_not_among_the_best() -> None:
    slots = Slots(scheduler=ASHA | {"form": "stopping"})
    verdicts = [slots.report(slots.next(), value) for value in (0.2, 0.1, 0.3)]
    assert verdicts == ["go_on", "stop", "go_on"]
    assert slots.study.outcomes[1].reason == (
        "asha: rank 2 of 2 after epoch 1, where the best 1 go on"
    )


def test_hyperband_compares_trials_of_one_bracket() -> None:
    slots = Slots(scheduler={"name": "hyperband", "reduction_factor": 3, "form": "stopping"})
    first, second, third, fourth = (slots.next() for _ in range(4))
    assert [slots.record.trial(n).info.judged_epochs for n in range(3)] == [(1, 3), (3,), (1, 3)]
    assert slots.report(first, 0.5) == "go_on"
    assert slots.report(second, 0.1, 0.1, 0.1) == "go_on"
    assert slots.report(third, 0.4) == "stop"
    assert slots.report(fourth, 0.2, 0.2, 0.05) == "go_on"


def test_the_median_is_that_of_all_that_is_known() -> None:
    slots = Slots(scheduler={"name": "median", "grace_period": 2})
    numbers = [slots.next() for _ in range(4)]
    assert [slots.report(n, 0.1, v) for n, v in zip(numbers, (0.5, 0.6, 0.7), strict=False)] == [
        "go_on"
    ] * 3
    assert slots.report(3, 0.1, 0.55) == "stop"
    assert "the median of 3 others is 0.6" in (slots.study.outcomes[3].reason or "")


def test_with_two_objectives_the_best_are_a_front() -> None:
    objectives = [{"metric": "val/top1"}, {"metric": "train/loss", "mode": "min"}]
    slots = Slots(scheduler=ASHA | {"reduction_factor": 2}, objectives=objectives, epochs=4)
    numbers = [slots.next() for _ in range(4)]
    for number, (top1, loss) in zip(
        numbers, ((0.9, 3.0), (0.1, 1.0), (0.8, 3.5), (0.05, 2.0)), strict=True
    ):
        history = history_of(top1)
        history[0]["train/loss"] = loss
        slots.record.train(number, history)
        slots.study.epoch_ended(number, history[0])
        slots.study.training_ended(number)
    assert [slots.next(), slots.next()] == [0, 1]


def test_a_decision_is_written_before_it_is_acted_on_with_what_it_was_based_on() -> None:
    slots = Slots(scheduler=ASHA, first_points=[{"prompts.depth": 5}])
    slots.report(slots.next(), 0.25)
    proposed, paused = read_journal(slots.record)
    assert proposed.decision.kind == "propose"
    assert (proposed.decision.params["prompts.depth"], proposed.decision.wish) == (
        5,
        {"prompts.depth": 5},
    )
    assert [(seen.trial, seen.epoch, seen.values) for seen in paused.seen] == [(0, 1, (0.25,))]  # type: ignore[union-attr]
    slots.next()
    store = slots.record.store
    assert isinstance(store, MemoryStore)
    # as if the driver had died between its decision and the trial's file
    del store.content[slots.record.keys.trial(1).info]
    again = slots.restarted().next_trial()
    assert isinstance(again, TrialInfo)
    assert again.number == 1
    assert again == slots.record.trial(1).info


def test_a_restarted_driver_judges_what_was_reported_to_nobody() -> None:
    slots = Slots(scheduler=ASHA)
    for number in (slots.next(), slots.next()):
        slots.record.train(number, history_of(0.1 + number))
    assert slots.restarted().next_trial() != "wait"
    assert goes_on(slots.record, 0, epoch=1) is False
    assert goes_on(slots.record, 1, epoch=1) is False


def test_what_paused_trials_have_trained_is_spent() -> None:
    slots = Slots(scheduler=ASHA, max_gpu_hours=0.001)
    resources = slots.config.resources.model_copy(update={"gpus_per_worker": 1.0})
    slots.config = slots.config.model_copy(update={"resources": resources})
    slots.study = slots.restarted()
    slots.report(slots.next(), 0.1)  # two seconds
    assert slots.study.stop_reason is None
    slots.report(slots.next(), 0.2)
    assert "GPU-hours spent" in (slots.study.stop_reason or "")
    assert "GPU-hours spent" in (slots.restarted().stop_reason or "")


def test_reading_a_study_decides_nothing() -> None:
    slots = Slots(scheduler=ASHA)
    slots.record.train(slots.next(), history_of(0.1))
    Study(slots.config, slots.record)
    assert len(read_journal(slots.record)) == 1


def test_a_trial_that_breaks_off_where_it_was_to_pause_is_not_started_again() -> None:
    slots = Slots(scheduler=ASHA)
    slots.record.train(slots.next(), history_of(0.1))
    assert not slots.study.resume(0)
    assert slots.study.training_ended(0) is None
    assert slots.next() == 1


def test_a_trial_that_is_promoted_before_its_workers_ended_goes_on() -> None:
    slots = Slots(scheduler=ASHA)
    numbers = [slots.next() for _ in range(3)]
    for number, value in zip(numbers, (0.3, 0.2, 0.1), strict=True):
        slots.record.train(number, history_of(value))
        slots.study.epoch_ended(number, history_of(value)[0])
    # its slot is not free yet: another one gets the next trial
    assert slots.next() == 3
    assert goes_on(slots.record, 0, epoch=1) is True
    assert slots.study.training_ended(0) is None
    assert slots.next() == 0


def test_a_driver_that_lost_its_study_decides_no_more() -> None:
    slots = Slots()
    late = slots.restarted()
    slots.next()
    with pytest.raises(OtherDriverError, match="another driver has taken decision 1"):
        late.next_trial()


def test_a_lost_decision_is_named() -> None:
    slots = Slots()
    for _ in range(3):
        slots.next()
    slots.record.store.delete(slots.record.keys.decision(2))
    with pytest.raises(InputError, match="decisions/000002.json is missing"):
        slots.restarted()


def test_patience_counts_trials_in_the_order_in_which_they_ended() -> None:
    slots = Slots(epochs=1, patience=2)
    for number, value in ((2, 0.9), (0, 0.5), (1, 0.6)):
        while len(slots.reported) <= number:
            slots.next()
        slots.report(number, value)
        slots.study.training_ended(number)
        slots.study.finish(number)
    assert slots.study.stop_reason == "no improvement in 2 trials"
    assert slots.restarted().stop_reason == "no improvement in 2 trials"


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_a_restart_proposes_what_would_have_been_proposed(sampler: str) -> None:
    space = {"prompts.depth": {"type": "int", "low": 0, "high": 8}}
    slots = Slots(sampler={"name": sampler, "num_startup_trials": 2}, scheduler=ASHA, num_trials=8)
    slots.config = slots.config.model_copy(
        update={"search_space": study_config(search_space=space).search_space}
    )
    slots.study = slots.restarted()
    for value in (0.1, 0.2, 0.3, 0.15, 0.05):
        slots.report(slots.next(), value)
    slots.next()
    store = slots.record.store
    assert isinstance(store, MemoryStore)
    before = dict(store.content)
    expected = new_points(slots.study, num_known=len(slots.reported))
    store.content = before
    assert new_points(slots.restarted(), num_known=len(slots.reported)) == expected


def new_points(study: Study, num_known: int) -> list[Params]:
    """The next two points, after whatever was left half done."""
    found: list[Params] = []
    while len(found) < 2:
        trial = study.next_trial()
        assert isinstance(trial, TrialInfo), trial
        if trial.number >= num_known:
            found.append(trial.params)
    return found


def test_optuna_sees_a_paused_trial_as_pruned_and_a_promoted_one_as_running() -> None:
    sampler = OptunaSampler(study_config(search={"num_trials": 9, "lag": None}))
    tried: list[Params] = []
    running, paused = PointOutcome("running"), PointOutcome("pruned", curve=(0.5,))
    for outcomes in ([], [running], [paused, running]):
        tried.append(sampler.propose(tried, outcomes, None).params)
    assert [trial.state.name for trial in sampler.study.trials] == ["PRUNED", "RUNNING", "RUNNING"]
    assert sampler.study.trials[0].intermediate_values == {0: 0.5}
    sampler.propose(tried, [running, paused, running], None)
    states = [trial.state.name for trial in sampler.study.trials]
    assert states == ["RUNNING", "PRUNED", "RUNNING", "RUNNING"]
    assert [trial.params for trial in sampler.study.trials[:3]] == tried


def test_a_point_that_was_asked_for_is_on_record_with_the_wish() -> None:
    slots = Slots()
    slots.study.look_at_control()
    slots.record.add_change(ControlChange(points=({"prompts.depth": 7},)))
    slots.study = slots.restarted()
    slots.next()
    assert slots.record.trial(0).info.params["prompts.depth"] == 7
    assert replay(slots.record).difference is None


@pytest.mark.parametrize(
    ("key", "before", "after", "expected"),
    [
        (
            "decisions/000001.json",
            '"prompts.depth": ',
            '"prompts.depth": 1',
            "was decided, derived",
        ),
        ("decisions/000004.json", '"pause"', '"go_on"', "000004.json: .* was decided"),
        ("decisions/000002.json", "0.25", "0.26", "its own record has 0.25"),
    ],
)
def test_a_replay_names_the_first_decision_that_differs(
    key: str, before: str, after: str, expected: str
) -> None:
    slots = Slots(scheduler=ASHA)
    for value in (0.25, 0.35):
        slots.report(slots.next(), value)
    assert replay(slots.record).num_equal == 4
    store = slots.record.store
    assert isinstance(store, MemoryStore)
    whole = f"{slots.record.name}/{key}"
    text = store.content[whole].decode()
    assert before in text
    store.content[whole] = text.replace(before, after, 1).encode()
    difference = replay(slots.record).difference
    assert difference is not None
    assert re.search(expected, difference), difference
