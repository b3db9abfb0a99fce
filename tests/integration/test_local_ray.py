"""The own Ray of a sweep: it listens on this machine only, and answers nobody without its token."""

from __future__ import annotations

import os
import subprocess
import sys

from testing.paths import ROOT
from testing.sweeps import check_closed_to_others

DRIVER = """
from orchestrator.config import ResourcesConfig
from orchestrator.execution.local_ray import local_ray
with local_ray(1, ResourcesConfig()):
    print("up", flush=True)
    input()
"""


def test_nobody_else_reaches_or_uses_it() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    try:
        assert driver.stdout.readline() == b"up\n"
        check_closed_to_others(driver)
    finally:
        driver.communicate(b"\n")
    assert driver.returncode == 0
