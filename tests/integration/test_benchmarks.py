"""Every benchmark comes to its end, in the smallest sizes; its figures then mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.paths import ROOT

SMALLEST = {
    "data": ["--videos", "1", "--draws", "1"],
    "exchange": ["--model", "ViT-B-32-quickgelu", "--frames", "1", "--repeats", "1"],
    "roofline": ["--classes", "4", "--batch", "2"],
    "scale": ["--num-trials", "4", "--finished", "4", "--clips", "100"],
    "score_many": ["--videos", "1", "--repeats", "1"],
    "search": ["--seeds", "1"],
    "sweep": ["--trials", "4", "--epochs", "1", "--clips", "32"],
    "tracking": ["--trials", "1", "--epochs", "2"],
    "train_step": ["--model", "ViT-B-32-quickgelu", "--classes", "4", "--frames", "2"],
}
HAVE_A_TEST = {"gpu"}  # tests/integration/test_gpu_benchmark.py


def test_every_benchmark_is_named_here() -> None:
    found = {path.stem for path in (ROOT / "benchmarks").iterdir() if not path.name.startswith("_")}
    assert found == SMALLEST.keys() | HAVE_A_TEST


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_it_comes_to_its_end(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
