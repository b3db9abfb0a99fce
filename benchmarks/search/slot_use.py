"""How much of the slots' time is training where no trial stops early and their times differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.comparators import Greedy
from benchmarks.search.slots import Search, run
from benchmarks.search.this_project import OURS, ThisProject, config_of

SLOTS = 8
NUM_TRIALS = 64
LAGS = (8, 32)
GREEDY = "greedy asynchronous"

Times = NDArray[np.float64]
Key = tuple[str, str]  # how the trials' times are distributed, which search


def measure(seed: int) -> dict[Key, dict[str, float]]:
    """The slot use of every search under every distribution."""
    found: dict[Key, dict[str, float]] = {}
    for kind, draw in DISTRIBUTIONS.items():
        times = draw(np.random.default_rng(seed))
        for name, make in searches().items():
            done = run(make(), SLOTS, 1, lambda *_: 0.5, times.__getitem__)
            found[kind, name] = {"slot use": done.slot_use}
    return found


def searches() -> dict[str, Callable[[], Search]]:
    """Each search's name, and how it is begun."""
    found: dict[str, Callable[[], Search]] = {
        GREEDY: partial(Greedy, NUM_TRIALS),
        OURS: _study,
    }
    for lag in LAGS:
        found[f"{OURS}, lag {lag}"] = partial(_study, lag=lag)
    return found


def _study(**search: object) -> ThisProject:
    return ThisProject(config_of(NUM_TRIALS, 1, SLOTS, search))


def _lognormal(sigma: float) -> Callable[[np.random.Generator], Times]:
    return lambda rng: rng.lognormal(0, sigma, NUM_TRIALS)


def _halving(rng: np.random.Generator) -> Times:
    """As many epochs as trials train under successive halving by 3."""
    return rng.choice([1.0, 3.0, 9.0, 27.0], p=[18 / 27, 6 / 27, 2 / 27, 1 / 27], size=NUM_TRIALS)


def _straggler(rng: np.random.Generator) -> Times:
    times = rng.lognormal(0, 0.1, NUM_TRIALS)
    times[NUM_TRIALS // 4] *= 10
    return times


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Times]] = {
    "lognormal, sigma 0.25": _lognormal(0.25),
    "lognormal, sigma 0.5": _lognormal(0.5),
    "lognormal, sigma 1": _lognormal(1.0),
    "1, 3, 9 or 27 epochs": _halving,
    "one trial 10 times as long": _straggler,
}
