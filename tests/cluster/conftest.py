"""A cluster for all tests that need no other one: to start one takes long."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.servers.ray_cluster import RayCluster
from testing.sweeps import GATE_PATH


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RayCluster]:
    """Two CPUs and a dashboard; its processes heed gates."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder,
        RayCluster(Path(folder)) as running,
    ):
        environment = {"PYTHONPATH": GATE_PATH, "TMPDIR": folder}
        running.start_node("--num-cpus", "2", environment=environment)
        yield running
