"""Debian's Prometheus scrapes a sweep that runs as a job of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.monitoring.prometheus import GAUGES
from testing.servers.prometheus import PROMETHEUS, Prometheus, prometheus
from testing.servers.ray_cluster import RayCluster
from tests.cluster.test_job import cluster, finished, submit, wait_until, workplace
from tests.integration.test_sweep import NUM_TRIALS, half_trained

__all__ = ["cluster", "workplace"]  # fixtures
pytestmark = [
    pytest.mark.slow,  # a real cluster and a whole sweep: minutes
    pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus (apt-get install prometheus)"),
]


@pytest.fixture
def monitor(cluster: RayCluster, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus(tmp_path, f"127.0.0.2:{cluster.metrics_port}") as running:
        yield running


def test_a_running_sweep_is_scraped_and_its_alerts_are_evaluated(
    cluster: RayCluster, workplace: Path, monitor: Prometheus
) -> None:
    def log() -> str:
        return cluster.run("logs", "watched").stdout

    code, output = submit(cluster, workplace, "watched", "--no-wait")
    assert code == 0, output
    wait_until(lambda: half_trained(workplace), log)
    # held at its gate, so it certainly runs
    wait_until(lambda: sum(monitor.query('ray_vitaclip_trials{state="running"}')) > 0, log)
    assert set(monitor.query("ray_vitaclip_trials_planned")) == {NUM_TRIALS}
    rules = {rule["name"]: rule for rule in monitor.rules()}
    assert len(rules) == 4
    wait_until(lambda: all(rule["health"] == "ok" for rule in monitor.rules()), log)
    assert rules["VitaclipTrialsFail"]["state"] == "inactive"
    disk = "ray_node_disk_utilization_percentage"
    wait_until(lambda: monitor.query(disk), lambda: str(sorted(monitor.names())))
    assert all(0 < percent < 100 for percent in monitor.query(disk))
    (workplace / "gate").unlink()
    wait_until(lambda: finished(cluster, "watched"), log)
    assert {f"ray_vitaclip_{name}" for name in GAUGES} <= monitor.names()
