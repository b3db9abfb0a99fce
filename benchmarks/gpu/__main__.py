"""Measures a GPU: whether it computes what the CPU does, how fast steps, evaluation and loading
are, and whether trials run on it, half a GPU and a whole one each.

Prints a table and writes a JSON file. ``--pretend`` tries all of it where there is no GPU, in tiny
sizes on a pretended one: the figures then mean nothing.

    python -m benchmarks.gpu --json gpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu.correctness import check, on_cpu
from benchmarks.gpu.feeding import describe_device, measure_evaluation, measure_loader, videos
from benchmarks.gpu.sizes import H100, TINY, Sizes
from benchmarks.gpu.steps import cases, measure_steps
from benchmarks.gpu.sweeps import measure_sweeps
from testing.pretended_device import pretended_device
from vitaclip.model import compilation

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 1 if a part failed, 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="what is written")
    parser.add_argument("--pretend", action="store_true", help="without a GPU, in tiny sizes")
    args = parser.parse_args(arguments)
    if not args.pretend and not torch.cuda.is_available():
        print("PyTorch finds no GPU here; --pretend tries the command without one")
        return 2
    found = measure(TINY if args.pretend else H100, is_pretended=args.pretend)
    args.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {args.json}")
    return int(bool(found["failed"]))


def measure(sizes: Sizes, *, is_pretended: bool) -> dict[str, list[Row]]:
    """All parts, each with its rows. One that fails does not keep the others from being measured:
    GPUs are lent for minutes.
    """
    started = time.perf_counter()
    counted, expected = cases(sizes), on_cpu(sizes)
    found: dict[str, list[Row]] = {"failed": []}
    with tempfile.TemporaryDirectory() as name, videos(sizes, Path(name) / "videos"):
        folder = Path(name)
        in_process: dict[str, Callable[[], Iterable[Row]]] = {
            "device": lambda: [describe_device()],
            "correctness": lambda: check(sizes, expected),
            "steps": lambda: measure_steps(sizes, counted),
            "evaluation": lambda: [measure_evaluation(sizes)],
            "loader": lambda: measure_loader(sizes),
        }
        with _pretended() if is_pretended else nullcontext():
            for part, work in in_process.items():
                _run(part, work, found)
        # Trials are other processes: there, nothing is pretended but Ray's GPU.
        ray_gpu = {"RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'} if is_pretended else {}
        with patch.dict(os.environ, ray_gpu):
            _run("sweeps", lambda: measure_sweeps(sizes, folder), found)
    print(f"all in {time.perf_counter() - started:.0f} s")
    return found


@contextmanager
def _pretended() -> Iterator[None]:
    """A device without a compiler."""
    with pretended_device(), patch.object(compilation, "compiled", lambda forward: forward):
        yield


def _run(part: str, work: Callable[[], Iterable[Row]], found: dict[str, list[Row]]) -> None:
    print(f"\n{part}")
    rows = found.setdefault(part, [])
    try:
        for row in work():
            rows.append(row)
            print("  " + "  ".join(f"{key} {_shown(value)}" for key, value in row.items()))
    except Exception as error:
        traceback.print_exc()
        found["failed"].append({"part": part, "error": f"{type(error).__name__}: {error}"})


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
