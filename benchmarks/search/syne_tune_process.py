"""Syne Tune's ASHA, asked by another process, so that it may live in an environment of its own.

Its promotion form was last in version 0.13.0, which wants NumPy 1; the stopping form of today's
version installs beside this project. This file therefore imports nothing else of the project. Each
line of standard input is a JSON list of a call and its arguments, and each line of standard output
the answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from datetime import datetime
from importlib.metadata import version
from typing import Any

logging.disable(logging.WARNING)
with contextlib.redirect_stdout(sys.stderr):  # it tells of extras that are not installed
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import uniform
    from syne_tune.optimizer.baselines import ASHA

VERSION = version("syne-tune")
IS_OLD = tuple(map(int, VERSION.split(".")[:2])) < (0, 14)
SPACE = {"x": uniform(0, 1)}


def make_scheduler(form: str, num_epochs: int, reduction_factor: int, seed: int) -> Any:
    """The scheduler of either version, which maximizes ``value``."""
    common = {"max_t": num_epochs, "reduction_factor": reduction_factor, "grace_period": 1}
    if IS_OLD:
        return ASHA(
            SPACE,
            metric="value",
            resource_attr="epoch",
            mode="max",
            type=form,
            random_seed=seed,
            search_options={"debug_log": False},
            **common,
        )
    return ASHA(
        SPACE,
        metric="value",
        time_attr="epoch",
        do_minimize=False,
        random_seed=seed,
        **common,
    )


class Session:
    """One search at a time."""

    def new(
        self, form: str, num_trials: int, num_epochs: int, reduction_factor: int, seed: int
    ) -> None:
        """Begins a search."""
        self.scheduler = make_scheduler(form, num_epochs, reduction_factor, seed)
        self.num_trials = num_trials
        self.trials: list[Trial] = []
        self.num_asked = 0

    def next_trial(self) -> int | None:
        """What a free slot gets. A new trial beyond the last is not begun."""
        suggestion = self.scheduler.suggest(self.num_asked) if IS_OLD else self.scheduler.suggest()
        if IS_OLD and not suggestion.spawn_new_trial_id:
            return int(suggestion.checkpoint_trial_id)
        # the scheduler takes the number of a trial that it has suggested once
        number = self.num_asked
        self.num_asked += 1
        if number >= self.num_trials:
            return None
        self.trials.append(Trial(number, suggestion.config, datetime.now()))
        self.scheduler.on_trial_add(self.trials[number])
        return number

    def epoch_ended(self, number: int, epoch: int, value: float) -> str:
        """The scheduler's decision."""
        trial, result = self.trials[number], {"epoch": epoch, "value": value}
        decision = self.scheduler.on_trial_result(trial, result)
        if decision != "CONTINUE":
            self.scheduler.on_trial_remove(trial)
        return {"CONTINUE": "go_on", "PAUSE": "pause", "STOP": "stop"}[decision]


def main() -> None:
    """Answers until its input ends."""
    session = Session()
    forms = ["stopping", "promotion"] if IS_OLD else ["stopping"]
    print(json.dumps({"version": VERSION, "forms": forms}), flush=True)
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        with contextlib.redirect_stdout(sys.stderr):
            answer = getattr(session, call)(*arguments)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
