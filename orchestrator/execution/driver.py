"""Runs a study on Ray: Tune executes, the study decides, the record remembers.

A continued study is a new ``Tuner`` over what the record says is left, not ``Tuner.restore``, which
brings back stale metrics of finished trials.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.config import ResourcesConfig
from orchestrator.events.observer import Observer
from orchestrator.execution.cluster import has_room_beside
from orchestrator.execution.ray_internals import (
    forget_statistics,
    keep_keys_out_of_trials,
    release_idle_actors,
)
from orchestrator.execution.scoring import Scorer
from orchestrator.execution.trial import BREAKDOWN, FAILURE, PREEMPTION, run_trial
from orchestrator.execution.worker import Job
from orchestrator.search.study import Study

_ERROR_LINES = 3
# What Tune prints of attempts that broke off: Progress says it in a line, the trial's log has more.
for _module in ("ray.tune.tune", "ray.tune.execution.tune_controller"):
    logging.getLogger(_module).setLevel(logging.CRITICAL)
keep_keys_out_of_trials()


def run_study(
    study: Study,
    store_uri: str,
    observers: Sequence[Observer] = (),
    checks: Sequence[Callable[[], None]] = (),
) -> dict[int, str]:
    """Trains and scores until nothing is left. Ray must be running.

    Args:
        study: what is left to do is asked of it.
        store_uri: the store with the study's record, as workers find it.
        observers: they hear of everything that happens; all are closed at the end.
        checks: called again and again; what one raises ends the run.

    Returns:
        trials that trained but could not be scored, with the reason; the next start tries them
        again.
    """
    driver = _Driver(study, store_uri, observers, checks)
    with ExitStack() as opened:
        for observer in observers:
            observer.opened(study)
            opened.callback(observer.closed)
        study.take_over()
        for number in study.unscored:
            driver.score(number)
        driver.train()
        driver.end_search()
        while driver.scorer.busy:
            driver.collect_scores(timeout_s=0.5)
    return driver.scorer.errors


class _NotSaved:
    """Tune pickles its parts for ``Tuner.restore``, which is never used: the record holds all that
    matters.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Driver(_NotSaved, Callback):
    """Hears from Tune what happens to trials, and passes it on."""

    def __init__(
        self,
        study: Study,
        store_uri: str,
        observers: Sequence[Observer],
        checks: Sequence[Callable[[], None]],
    ) -> None:
        self._study = study
        self._store_uri = store_uri
        self._observers = observers
        self._checks = checks
        # of each trial, those that failed and those preempted
        self._attempts = Counter[tuple[int, str]]()
        self._running: set[int] = set()  # trials that Ray has
        self._scheduler = _Scheduler()  # type: ignore[no-untyped-call]
        config = study.config
        self.scorer = Scorer(store_uri, config.name, config.benchmarks, config.resources)

    def train(self) -> None:
        """Runs every trial that the study has left to run."""
        resources = self._study.config.resources
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                tune.with_resources(run_trial, _actor_resources(resources)),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(self._next_config),
                    scheduler=self._scheduler,
                    num_samples=-1,
                    max_concurrent_trials=resources.max_concurrent_trials,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=self._study.config.name,
                    storage_path=folder,  # Tune's own notes only
                    failure_config=tune.FailureConfig(max_failures=0),  # see _may_try_again
                    callbacks=[self],
                    verbose=0,
                ),
            ).fit()

    def end_search(self) -> None:
        """Scores the trials that were paused and will not go on."""
        for number in self._study.end_search():
            self._announce_end(number, "pruned")

    def score(self, number: int) -> None:
        """Sends a trained trial to its benchmarks; a failed one has none."""
        if self._study.outcomes[number].state == "failed":
            self._finish(number)
        else:
            self.scorer.add(number)

    def collect_scores(self, timeout_s: float = 0) -> None:
        """Finishes trials whose benchmarks are in."""
        for check in self._checks:
            check()
        self._study.look_at_control()
        for observer in self._observers:
            observer.refreshed()
        for number in self.scorer.poll(timeout_s, may_start=self._may_score()):
            self._finish(number)

    # What Tune calls

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        if not {FAILURE, PREEMPTION, BREAKDOWN} & result.keys():
            number = _number(trial)
            for observer in self._observers:
                observer.epoch_ended(number, result)
            self._study.epoch_ended(number, result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self._attempt_ended(trial, error=None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._attempt_ended(trial, _last_lines(trial))

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self.collect_scores()

    def _may_score(self) -> bool:
        """Whether scoring may begin: beside training it takes a slot, so trials are gathered."""
        resources = self._study.config.resources
        return (
            resources.scoring == "after"
            or not self._running
            or not self.scorer.has_scored
            or self.scorer.num_waiting >= resources.max_concurrent_trials
        )

    def _is_lent(self) -> bool:
        """Whether the next slot that would start a trial is scoring's for now."""
        resources = self._study.config.resources
        slots = resources.max_concurrent_trials
        return (
            resources.scoring == "beside"
            and self.scorer.in_flight
            and len(self._running) >= slots - 1
            and not has_room_beside(resources)
        )

    def _attempt_ended(self, trial: Trial, error: str | None) -> None:
        """What a trial said of its end matters more than the error that Tune has of it."""
        number, said = _number(trial), trial.last_result or {}
        self._running.discard(number)
        reason = next((said[key] for key in (FAILURE, PREEMPTION, BREAKDOWN) if key in said), error)
        if (
            reason is None
            or FAILURE in said
            or not self._may_try_again(number, preempted=PREEMPTION in said)
        ):
            self._training_ended(number, reason)
        elif self._study.resume(number):
            for observer in self._observers:
                observer.broke_off(number, reason)
        else:  # it was lost when it had nothing left to do
            self._training_ended(number, None)
        forget_statistics(trial)

    def _may_try_again(self, number: int, *, preempted: bool) -> bool:
        """Whether a trial that broke off has attempts left. Preemptions have a budget of their
        own.
        """
        resources = self._study.config.resources
        kind, limit = (
            ("preempted", resources.max_preemptions)
            if preempted
            else ("failed", resources.max_failures)
        )
        self._attempts[number, kind] += 1
        return self._attempts[number, kind] <= limit

    def _training_ended(self, number: int, error: str | None) -> None:
        outcome = self._study.training_ended(number, error)
        if outcome is not None:
            self._announce_end(number, outcome.state)
            return
        for observer in self._observers:
            observer.paused(number)

    def _announce_end(self, number: int, state: str) -> None:
        for observer in self._observers:
            observer.training_ended(number, state)
        self.score(number)

    def _finish(self, number: int) -> None:
        result = self._study.finish(number)
        for observer in self._observers:
            observer.finished(result)

    def _next_config(self) -> dict[str, Any] | str | None:
        if is_lent := self._is_lent():
            self._scheduler.release_idle_actors()
        trial = "wait" if is_lent else self._study.next_trial()
        if trial == "wait":
            # while a study is paused Tune asks for trials and does nothing else
            self.collect_scores()
            return None
        if trial is None:
            return str(Searcher.FINISHED)
        self._running.add(trial.number)
        for observer in self._observers:
            observer.started(trial)
        return {"job": asdict(Job(self._store_uri, self._study.config.name, trial.number))}


class _Scheduler(_NotSaved, FIFOScheduler):
    """Tune's own order. Of all that a user gives Tune, only this is told of Tune's controller."""

    _controller: Any = None  # until there is a trial

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._controller = tune_controller

    def release_idle_actors(self) -> None:
        """See :func:`orchestrator.execution.ray_internals.release_idle_actors`."""
        if self._controller is not None:
            release_idle_actors(self._controller)


class _Searcher(_NotSaved, Searcher):
    """Hands Tune the study's trials."""

    def __init__(self, next_config: Callable[[], dict[str, Any] | str | None]) -> None:
        super().__init__()
        self._next_config = next_config

    def suggest(self, trial_id: str) -> Any:
        return self._next_config()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The callback hears of it, with the reason."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """See ``_NotSaved``."""


def _actor_resources(resources: ResourcesConfig) -> dict[str, float]:
    """A one-worker trial trains in its actor; else the actor only watches the worker group, and
    takes no CPU from it.

    Tune rejects an empty request, so the watching actor asks for one byte.
    """
    return resources.per_worker if resources.max_workers == 1 else {"CPU": 0, "memory": 1}


def _number(trial: Trial) -> int:
    return int(trial.config["job"]["number"])


def _last_lines(trial: Trial) -> str:
    error = trial.get_error()
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(lines[-_ERROR_LINES:]) or type(error).__name__
