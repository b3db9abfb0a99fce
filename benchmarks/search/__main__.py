"""``python -m benchmarks.search``: how soon a search is done and what it finds, against Ray Tune's
ASHA, Optuna's pruner and Syne Tune's ASHA.

Searches are played in virtual time, without a Ray: the product's own ``Study`` over a record in
memory, and the others' own classes. Prints tables of one run, each figure a mean with its standard
error over the seeds:

    early stopping   64 learning curves of 27 epochs: epochs trained, how many trials trained them
                     all, wall time in epochs, the share of the slots' time that was training, the
                     best value that any trial reported, and the regret of choosing that trial: how
                     much better the best of all curves ends than its own
    slot use         the same share for trials of very different durations, without early stopping
    regret           TPE on three functions: how far the best point is from the optimum

Syne Tune is compared where it can be imported. Its promotion form was last in version 0.13.0, which
needs an environment of its own: ``--syne-tune`` names that one's Python.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
from rich.console import Console

from benchmarks.search import early_stopping, regret, slot_use
from benchmarks.search.tables import Figures, print_early_stopping, print_regret, print_slot_use

Key = TypeVar("Key")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=30, help="how many (default: 30)")
    parser.add_argument(
        "--syne-tune",
        action="append",
        default=[sys.executable] if importlib.util.find_spec("syne_tune") else [],
        metavar="PYTHON",
        help="a Python that has Syne Tune, beside this one if it has; may be given again",
    )
    parser.add_argument(
        "--sigma",
        type=float,
        default=0.0,
        help="under early stopping, trials' epochs take lognormal times (default: 0, all the same)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="default: one for each core"
    )
    args = parser.parse_args()
    console, started = Console(width=140, highlight=False), time.perf_counter()
    context = get_context("spawn")  # a fork could inherit a lock that is held
    with ProcessPoolExecutor(args.processes, context) as pool:
        each_seed = partial(_each_seed, pool, args.seeds)
        curves = partial(early_stopping.measure, pythons=tuple(args.syne_tune), sigma=args.sigma)
        print_early_stopping(each_seed(curves), console)
        print_slot_use(each_seed(slot_use.measure), console)
        print_regret(each_seed(regret.measure), console)
    console.print(f"{args.seeds} seeds in {time.perf_counter() - started:.0f} s; {_machine()}")


def _each_seed(
    pool: ProcessPoolExecutor, seeds: int, measure: Callable[[int], dict[Key, dict[str, float]]]
) -> dict[Key, Figures]:
    """Every figure of every search, over the seeds."""
    measured = list(pool.map(measure, range(seeds)))
    return {
        key: {name: np.array([found[key][name] for found in measured]) for name in figures}
        for key, figures in measured[0].items()
    }


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "numpy"))
    python = platform.python_version()
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, {packages}"


if __name__ == "__main__":
    main()
