"""A cluster without a node to train on: a sweep says what it waits for, and trains on the nodes
that are added.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.servers.ray_cluster import RayCluster
from testing.sweeps import PATIENCE_S, start_sweep, wait_until
from tests.integration.test_sweep import STUDY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * PATIENCE_S)]

# Ray's own autoscaler, with the provider that Ray tests it with: its nodes are raylets on this
# machine.
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "test",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1.0,
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    **{
        f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup", "worker_setup")
    },
    **{f"{role}_start_ray_commands": [] for role in ("head", "worker")},
    "file_mounts_sync_continuously": False,
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": FAKE_HEAD_NODE_ID,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "trainer": {
            "resources": {"CPU": 1, "object_store_memory": 100 * 2**20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
}

ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="a") as folder,
        RayCluster(Path(folder)) as running,
    ):
        provider = AUTOSCALER["provider"] | {"gcs_address": running.address}
        (Path(folder) / "autoscaler.yaml").write_text(
            yaml.safe_dump(AUTOSCALER | {"provider": provider})
        )
        options = ("--num-cpus", "0", "--autoscaling-config", f"{folder}/autoscaler.yaml")
        running.start_node(*options, environment=ENVIRONMENT)
        yield running


def test_trials_wait_visibly_for_nodes(
    cluster: RayCluster, motion_dataset: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    environment = {
        **os.environ,
        **cluster.credentials,
        "RAY_ADDRESS": cluster.address,
        "VITACLIP_STORE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }

    def start(name: str, *settings: str) -> tuple[Popen[bytes], Path]:
        log = tmp_path / f"{name}.txt"
        options = [word for setting in (f"name={name}", *settings) for word in ("--set", setting)]
        return start_sweep(tmp_path, log, environment, *options), log

    too_large, log = start("too_large", "resources.cpus_per_worker=2")
    wait_until(
        lambda: "adds no node for 2 CPU: what needs it waits" in log.read_text(), too_large, log
    )
    too_large.send_signal(signal.SIGINT)
    assert too_large.wait(PATIENCE_S) == 130, log.read_text()

    sweep, log = start("fits", "search.num_trials=2")
    assert sweep.wait(PATIENCE_S) == 0, log.read_text()
    assert "2 trials at once need 2 CPU (1 each), found 0 so far" in log.read_text()
    results = StudyRecord(open_store(str(tmp_path / "store")), "fits").results()
    assert [(result.number, result.state) for result in results] == [
        (0, "complete"),
        (1, "complete"),
    ]
