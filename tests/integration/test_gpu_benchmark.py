"""The command that measures a GPU, all of it, on a pretended one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu import correctness
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.sizes import TINY
from testing.pretended_device import pretended_device


@pytest.mark.slow
def test_all_of_it_runs_on_a_pretended_gpu(tmp_path: Path) -> None:
    assert main(["--pretend", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found.pop("failed") == []
    assert [*found] == ["device", "correctness", "steps", "evaluation", "loader", "sweeps"]
    fp32, bf16 = found["correctness"]
    assert fp32["gradients"] == fp32["logits"] == 0
    assert 0 < bf16["gradients"] < bf16["allowed"]
    steps = found["steps"]
    assert len(steps) == 3 * len(TINY.classes) * len(TINY.batches)
    assert all(step["clips_per_s"] > 0 for step in steps)
    # All three ways compute the same step.
    for reference, eager, compiled in zip(steps[::3], steps[1::3], steps[2::3], strict=True):
        assert reference["loss"] == pytest.approx(eager["loss"], rel=2e-2)
        assert compiled["loss"] == eager["loss"]
    assert [row["processes"] for row in found["loader"]] == [*TINY.loader_workers]
    assert [(row["sweep"], row["trials"]) for row in found["sweeps"]] == [
        ("half_a_gpu_each", 2),
        ("a_gpu", 1),
    ]


def test_wrong_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "TOLERANCES", {"bf16": 1e-9})
    expected = correctness.on_cpu(TINY)
    with pretended_device(), pytest.raises(ArithmeticError, match="allowed are 1e-09"):
        correctness.check(TINY, expected)


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--pretend tries the command" in capsys.readouterr().out
