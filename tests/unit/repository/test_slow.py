"""The table of the slow tests, made by a run of three small ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from testing.paths import ROOT

TESTS = """
import pytest
pytestmark = pytest.mark.slow
def test_good(): pass
def test_bad(): assert False
def test_without(): pytest.skip("needs radosgw: install it")
"""


def test_the_table_says_what_ran_what_failed_and_why_some_were_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(TESTS)
    command = [sys.executable, "-m", "tests.drivers.slow", str(tmp_path), "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    *_, bad, good, without, total = done.stdout.splitlines()
    assert bad.startswith("failed ")
    assert bad.endswith("test_bad")
    assert good.startswith("passed ")
    assert without.endswith("(needs radosgw: install it)")
    assert total.startswith("slow tests: 1 passed, 1 failed, 1 skipped, ")
