"""The study's state machine without Ray: same proposals and results whatever happens, and how
trials end.
"""

from __future__ import annotations

import gc
import inspect
import random
import tracemalloc
from typing import Any

import optuna
import pytest

from orchestrator.config import StudyConfig
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals.optuna_sampler import OptunaSampler
from orchestrator.search.search_space import Params, apply
from orchestrator.search.study import Study
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.trial import TrialInfo
from testing.study_fixtures import PROVENANCE, history_of, study_config
from testing.study_simulation import (
    SEARCHES,
    MemoryStore,
    SimulatedRecord,
    Simulation,
    config_of,
    disturbed,
    undisturbed,
)


@pytest.mark.parametrize(
    "index", range(len(SEARCHES)), ids=[s["sampler"]["name"] for s in SEARCHES]
)
def test_crashes_and_concurrency_change_nothing(index: int) -> None:
    """A failing case replays with ``disturbed(SEARCHES[index], index, interleaving)``."""
    expected = undisturbed(SEARCHES[index], seed=index)
    for interleaving in range(10):
        found = disturbed(SEARCHES[index], index, interleaving)
        assert found == expected, f"interleaving {interleaving}"


def test_the_simulation_does_crash_and_every_trial_ends_once() -> None:
    config = config_of(SEARCHES[0], seed=0, slots=3)
    simulation = Simulation(config, random.Random(1))
    results = simulation.run()
    assert simulation.num_crashes > 3
    assert [result["number"] for result in results] == list(range(config.search.num_trials))
    assert {result["state"] for result in results} >= {"complete", "failed"}


def test_seeds_differ_in_their_proposals() -> None:
    first, other = (undisturbed(SEARCHES[0], seed) for seed in (0, 1))
    assert [r["params"] for r in first] != [r["params"] for r in other]
    assert len({str(r["params"]) for r in first}) == len(first)


class Manual:
    """A study whose trainings are played by hand."""

    def __init__(self, **search: Any) -> None:
        self.config = study_config(search={"num_trials": 12} | search, benchmarks=[])
        self.record = SimulatedRecord(MemoryStore(), self.config.name)
        self.record.create_or_check(self.config, PROVENANCE)
        self.study = Study(self.config, self.record)

    def next(self) -> TrialInfo:
        trial = self.study.next_trial()
        assert isinstance(trial, TrialInfo), trial
        return trial

    def train(self, *top1: float, error: str | None = None) -> str:
        """Runs the next trial to the end of these epochs, and finishes it."""
        trial = self.next()
        self.record.train(trial.number, history_of(*top1)) if top1 else None
        outcome = self.study.training_ended(trial.number, error)
        self.study.finish(trial.number)
        assert outcome is not None
        return outcome.state


def test_another_terminal_pauses_and_lengthens_a_study_and_adds_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.search.study._CONTROL_INTERVAL_S", -1.0)
    manual = Manual(num_trials=2)
    manual.record.add_change(ControlChange(paused=True))
    assert manual.study.next_trial() == "wait"
    point = {"prompts.depth": 4, "optimizer.lr": 5e-3}
    manual.record.add_change(ControlChange(paused=False, num_trials=3, points=(point,)))
    assert manual.next().params == {"prompts.depth": 4, "optimizer.lr": 5e-3}
    assert manual.next().params["optimizer.lr"] != 5e-3
    assert manual.next().number == 2
    # a running one may break off, or more may be asked for
    assert manual.study.next_trial() == "wait"
    manual.study.resume(1)
    assert manual.next().number == 1
    for number in range(3):
        manual.study.training_ended(number, "stopped")
    assert manual.study.next_trial() is None


def test_budgets_end_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Manual(max_wall_hours=1e-9)
    assert wall.study.next_trial() is None
    assert "hours since the study began" in (wall.study.stop_reason or "")
    manual = Manual(max_gpu_hours=0.005)
    resources = manual.config.resources.model_copy(update={"gpus_per_worker": 2.0})
    manual.study.config = manual.config.model_copy(update={"resources": resources})
    manual.train(0.1, 0.2, 0.3)  # three epochs of two seconds
    assert manual.study.stop_reason is None
    manual.train(0.1, 0.2, 0.3)
    assert "GPU-hours spent" in (manual.study.stop_reason or "")


def test_a_failed_trial_keeps_its_reason_and_the_study_goes_on() -> None:
    manual = Manual()
    assert manual.train(0.1, 0.2, 0.3) == "complete"
    assert manual.train(0.1, error="NonFiniteLossError: step 7") == "failed"
    assert manual.train(0.1, 0.2, 0.3) == "complete"
    failed = manual.record.results()[1]
    assert (failed.state, failed.reason) == ("failed", "NonFiniteLossError: step 7")


def test_a_training_that_stops_early_for_no_reason_is_failed_not_complete() -> None:
    assert Manual().train(0.1, 0.2) == "failed"


def test_a_study_whose_first_trials_all_fail_stops_and_says_why() -> None:
    manual = Manual(max_first_failures=2, lag=2, num_trials=5)
    for _ in range(3):
        manual.train(error="DataError: no such file")
    assert manual.study.next_trial() is None
    assert "DataError: no such file" in (manual.study.stop_reason or "")


def test_patience_counts_trials_since_the_best() -> None:
    manual = Manual(patience=2, lag=2)
    for top1 in (0.5, 0.7, 0.6):
        manual.train(top1, top1, top1)
    assert manual.study.stop_reason is None
    manual.train(0.65, 0.65, 0.65)
    manual.train(0.65, 0.65, 0.65)
    assert manual.study.stop_reason == "no improvement in 2 trials"
    assert manual.study.next_trial() is None


def test_a_proposal_waits_for_the_trials_it_depends_on() -> None:
    manual = Manual(lag=2)
    first, _ = manual.next(), manual.next()
    assert manual.study.next_trial() == "wait"
    manual.record.train(first.number, history_of(0.1, 0.2, 0.3))
    manual.study.training_ended(first.number)
    assert manual.next().number == 2


def test_interrupted_trials_come_first_and_unchanged() -> None:
    manual = Manual()
    first, second = manual.next(), manual.next()
    # trained, but its end was never noted
    manual.record.train(second.number, history_of(0.1, 0.2, 0.3))
    again = Study(manual.config, manual.record)
    assert again.unscored == [second.number]
    assert again.next_trial() == first
    assert again.next_trial().number == 2  # type: ignore[union-attr]


def test_of_a_finished_trial_the_driver_keeps_what_later_ones_depend_on() -> None:
    """Not its config and not its metrics: those were 15 KB per trial, and a study may have
    thousands.
    """
    manual = Manual(num_trials=40, sampler={"name": "random"})
    for _ in range(40):
        manual.train(0.1, 0.2, 0.3)
    tracemalloc.start(30)
    study = Study(manual.config, manual.record)
    gc.collect()
    everything = tracemalloc.take_snapshot()
    tracemalloc.stop()
    # other tests' threads may be at work
    own = everything.filter_traces(
        [tracemalloc.Filter(True, inspect.getfile(Study), all_frames=True)]
    )
    assert len(study.finished) == 40
    assert 100 < sum(trace.size for trace in own.traces) / 40 < 2500


def test_repeats_share_a_point_and_differ_in_seed() -> None:
    manual = Manual(num_repeats=3)
    trials = [manual.next() for _ in range(3)]
    assert len({str(trial.params) for trial in trials}) == 1
    assert [trial.train.seed for trial in trials] == [0, 1, 2]


def test_a_grid_proposes_every_point_once_and_goes_on_after_a_restart() -> None:
    config = study_config(
        search_space={
            "prompts.depth": {"type": "int", "low": 0, "high": 2},
            "prompts.local": {"type": "categorical", "choices": [True, False]},
        },
        search={"num_trials": 6, "lag": 8, "sampler": {"name": "grid"}},
        benchmarks=[],
    )
    record = SimulatedRecord(MemoryStore(), config.name)
    record.create_or_check(config, PROVENANCE)
    points = [Study(config, record).next_trial() for _ in range(1)]
    for _ in range(5):
        study = Study(config, record)
        for trial in record.trials():
            assert study.next_trial() == trial
        points.append(study.next_trial())
    assert len({str(point.params) for point in points}) == 6  # type: ignore[union-attr]


def test_first_points_are_tried_first_and_completed_by_the_sampler() -> None:
    manual = Manual(first_points=[{"prompts.depth": 4, "optimizer.lr": 1e-3}, {"prompts.depth": 1}])
    first, second = manual.next(), manual.next()
    assert first.params == {"prompts.depth": 4, "optimizer.lr": 1e-3}
    assert second.params["prompts.depth"] == 1
    assert second.train == apply(manual.config.train, second.params)


OUTCOMES = [
    PointOutcome("failed"),
    PointOutcome("pruned", curve=(0.1, 0.2)),
    PointOutcome("complete", values=(0.5,)),
]


def test_the_sampler_is_told_of_failures_and_never_of_a_pruned_trial_as_complete() -> None:
    trials = optuna_study(study_config(), OUTCOMES).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "PRUNED", "COMPLETE", "RUNNING"]
    assert trials[1].intermediate_values == {0: 0.1, 1: 0.2}
    assert trials[2].values == [0.5]


@pytest.mark.parametrize(("mode", "best"), [("max", 0.9), ("min", 0.1)])
def test_the_sampler_searches_in_the_direction_of_the_objective(mode: str, best: float) -> None:
    objectives = [{"metric": "val/loss", "mode": mode}]
    config = study_config(search={"num_trials": 3, "objectives": objectives})
    ended = [PointOutcome("complete", values=(value,)) for value in (0.5, 0.9, 0.1)]
    assert optuna_study(config, ended).best_value == best


def optuna_study(config: StudyConfig, ended: list[PointOutcome]) -> optuna.Study:
    """What Optuna knows after points that ended so, and one more proposal."""
    sampler = OptunaSampler(config)
    tried: list[Params] = []
    for point in range(len(ended)):
        running = [PointOutcome("running")] * point
        tried.append(sampler.propose(tried, running, None).params)
    sampler.propose(tried, ended, None)
    return sampler.study
