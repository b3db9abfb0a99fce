"""Which search is done sooner, and with what: the same learning curves for every one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.comparators import OptunaPruner, RayAsha
from benchmarks.search.curves import NUM_CURVES, NUM_EPOCHS, Curves, make_curves
from benchmarks.search.slots import Search, run
from benchmarks.search.syne_tune_asha import SyneTuneAsha, syne_tune_forms
from benchmarks.search.this_project import OURS, ThisProject, config_of

SLOTS = (1, 4, 8, 32)
REDUCTION_FACTOR = 3
MIN_LAG = 4

FIGURES = (
    "epochs",  # trained, by all trials together
    "to the end",  # how many trials trained all epochs
    "wall",  # time until the last trial has ended, in epochs
    "slot use",
    "best reported",  # the best value that any trial reported
    "regret",  # how much better the best curve ends than that of the trial that reported it
)
Key = tuple[str, int, str]  # which curves, slots, which search


def measure(seed: int, pythons: tuple[str, ...], sigma: float) -> dict[Key, dict[str, float]]:
    """Every search on every kind of curves with every number of slots.

    Args:
        seed: of the curves.
        pythons: interpreters that have Syne Tune.
        sigma: trials' epochs take lognormal times; 0: all take the same.
    """
    found: dict[Key, dict[str, float]] = {}
    times = np.random.default_rng([seed, 1]).lognormal(0, sigma, NUM_CURVES)
    for kind, crossing in (("not crossing", False), ("crossing", True)):
        curves = make_curves(seed, crossing=crossing)
        for slots in SLOTS:
            for name, make in searches(slots, pythons).items():
                found[kind, slots, name] = figures(make(), slots, curves, times)
    return found


def figures(
    search: Search, slots: int, curves: Curves, times: NDArray[np.float64]
) -> dict[str, float]:
    """What a search makes of these curves.

    Args:
        search: has not begun.
        slots: how many trials run at once.
        curves: what trials report.
        times: how long an epoch of each takes.
    """
    reported = curves.reported
    done = run(
        search, slots, NUM_EPOCHS, lambda n, epoch: float(reported[n, epoch - 1]), times.__getitem__
    )
    best = {number: reported[number, :epochs].max() for number, epochs in done.epochs.items()}
    chosen = max(best, key=lambda number: best[number])
    found = (
        done.epochs.total(),
        list(done.epochs.values()).count(NUM_EPOCHS),
        done.wall,
        done.slot_use,
        best[chosen],
        curves.final.max() - curves.final[chosen],
    )
    return dict(zip(FIGURES, map(float, found), strict=True))


def searches(slots: int, pythons: tuple[str, ...]) -> dict[str, Callable[[], Search]]:
    """Each search's name, and how it is begun."""
    lag = max(MIN_LAG, slots)
    sizes = (NUM_CURVES, NUM_EPOCHS, REDUCTION_FACTOR)
    found: dict[str, Callable[[], Search]] = {
        f"{OURS}, promotion": partial(_study, slots, "promotion"),
        f"{OURS}, stopping": partial(_study, slots, "stopping"),
        f"{OURS}, lag {lag}": partial(_study, slots, "stopping", lag=lag),
        "Ray Tune ASHAScheduler": partial(RayAsha, *sizes),
        "Optuna SuccessiveHalvingPruner": partial(OptunaPruner, NUM_CURVES, REDUCTION_FACTOR),
    }
    for form, (python, version) in syne_tune_forms(pythons).items():
        found[f"Syne Tune {version} ASHA, {form}"] = partial(SyneTuneAsha, python, form, *sizes)
    return found


def _study(slots: int, form: str, **search: object) -> ThisProject:
    scheduler = {"name": "asha", "form": form, "reduction_factor": REDUCTION_FACTOR}
    return ThisProject(config_of(NUM_CURVES, NUM_EPOCHS, slots, {"scheduler": scheduler} | search))
