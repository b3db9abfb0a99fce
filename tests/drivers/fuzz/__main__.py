"""Damaged files against everything that reads them.

Run it with ``make fuzz``, or ``python -m tests.drivers.fuzz [TARGET ...]``.

Each case runs in a process of its own. Each reader must read it or refuse it with one of the
project's own errors, within 10 s of its own computing (a minute by the clock, for a busy machine)
and 1 GB. A case is decided by the seed and its number: ``--case`` runs one again, in this process.
The files of those that fail are saved. Ends with code 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.drivers.fuzz.targets import TARGETS, Target
from vitaclip.errors import VitaClipError

LIMIT_S = 10
# A reader that waits for something does not compute. On a busy machine one that computes waits too.
WAIT_LIMIT_S = 300
LIMIT_BYTES = 10**9
_FAILED = 70  # the exit code of a process that found a traceback


@dataclass
class Figures:
    """What became of the cases of one target."""

    seed: int
    idle_bytes: int
    ends: Counter[str] = field(default_factory=Counter)
    worst_s: float = 0.0
    worst_bytes: int = 0

    @property
    def num_failed(self) -> int:
        return self.ends.total() - self.ends["passed"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.drivers.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all"
    )
    parser.add_argument("--minutes", type=float, default=0.5, help="for each target (default 0.5)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="default: a new one"
    )
    parser.add_argument("--case", type=int, help="run only this case, in this process")
    parser.add_argument(
        "--save", type=Path, default=Path("fuzz_failures"), help="where failing files go"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"found {', '.join(unknown)}, allowed are {', '.join(TARGETS)}")
    # no network, and no terminal's own width
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    if options.case is not None:
        return replay(chosen, options.seed, options.case)
    figures = {
        target.name: fuzz(target, options.seed, options.minutes * 60, options.save)
        for target in chosen
    }
    Console().print(_table(figures))
    return 1 if any(figure.num_failed for figure in figures.values()) else 0


def fuzz(target: Target, seed: int, seconds: float, save: Path) -> Figures:
    """Runs cases 0, 1, 2, ... until the time is over, one at least."""
    ends_at = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as work:
        sound = Path(work) / "sound"
        sound.mkdir()
        target.prepare(sound)
        figures, number = Figures(seed, _idle_bytes()), 0
        while not number or time.monotonic() < ends_at:
            folder = Path(work) / "case"
            end = _run_apart(target, sound, folder, seed, number, figures)
            figures.ends[end] += 1
            if end != "passed":
                kept = save / f"{target.name}-{seed}-{number}"
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                print(
                    f"{target.name}, --seed {seed} --case {number}: {end}; its files: {kept}",
                    flush=True,
                )
            shutil.rmtree(folder)
            number += 1
    return figures


def replay(targets: Sequence[Target], seed: int, number: int) -> int:
    """Runs one case in this process, where its error is seen."""
    for target in targets:
        with tempfile.TemporaryDirectory() as work:
            sound, folder = Path(work) / "sound", Path(work) / "case"
            sound.mkdir()
            target.prepare(sound)
            run_case(target, sound, folder, seed, number)
    return 0


def make_case(target: Target, sound: Path, folder: Path, seed: int, number: int) -> None:
    """Damages a copy of the sound files."""
    shutil.copytree(sound, folder)
    target.damage(folder, random.Random(f"{target.name} {seed} {number}"))


def run_case(
    target: Target,
    sound: Path,
    folder: Path,
    seed: int,
    number: int,
    arm: Callable[[], None] = lambda: None,
) -> None:
    """Makes a case and reads it. Raises what a reader should not.

    Args:
        arm: called before each reader.
    """
    make_case(target, sound, folder, seed, number)
    for reader in target.read(folder):
        arm()
        try:
            reader()
        except VitaClipError as error:
            str(error).encode("utf-8", "replace")


def _run_apart(
    target: Target, sound: Path, folder: Path, seed: int, number: int, figures: Figures
) -> str:
    """One case in a process of its own; how it ended."""
    child = os.fork()
    if not child:
        _be_the_process(target, sound, folder, seed, number)
    _, status, usage = os.wait4(child, 0)
    figures.worst_s = max(figures.worst_s, usage.ru_utime + usage.ru_stime)
    grown = usage.ru_maxrss * 1024 - figures.idle_bytes
    figures.worst_bytes = max(figures.worst_bytes, grown)
    if os.WIFSIGNALED(status):
        return _end_by(os.WTERMSIG(status))
    if os.WEXITSTATUS(status):
        return (folder / "traceback.txt").read_text().splitlines()[-1][:200]
    return f"took {grown / 1e9:.1f} GB" if grown > LIMIT_BYTES else "passed"


def _end_by(signal_number: int) -> str:
    match signal_number:
        case signal.SIGPROF:
            return f"computed for over {LIMIT_S} s"
        case signal.SIGALRM:
            return f"was not done after {WAIT_LIMIT_S} s"
    return f"died of signal {signal_number}"


def _be_the_process(target: Target, sound: Path, folder: Path, seed: int, number: int) -> None:
    for ending in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ending, signal.SIG_DFL)  # it ends the process, whatever this is doing
    _arm()
    limit = _virtual_bytes() + LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        run_case(target, sound, folder, seed, number, _arm)
    except BaseException:
        (folder / "traceback.txt").write_text(traceback.format_exc(), errors="replace")
        os._exit(_FAILED)
    os._exit(0)


def _arm() -> None:
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.alarm(WAIT_LIMIT_S)


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _idle_bytes() -> int:
    """The memory of a process of its own that does nothing."""
    child = os.fork()
    if not child:
        os._exit(0)
    return int(os.wait4(child, 0)[2].ru_maxrss) * 1024


def _table(figures: dict[str, Figures]) -> Table:
    table = Table("target", "seed", "cases", "failed", "most computing, s", "most memory, MB")
    for name, figure in figures.items():
        numbers = (figure.seed, figure.ends.total(), figure.num_failed)
        table.add_row(
            name, *map(str, numbers), f"{figure.worst_s:.2f}", f"{figure.worst_bytes / 1e6:.0f}"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
