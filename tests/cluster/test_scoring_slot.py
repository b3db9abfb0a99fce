"""On a cluster that trials fill, benchmarks get their slot in turn: first scores appear while the
study trains.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.servers.ray_cluster import RayCluster
from testing.sweeps import PATIENCE_S, start_sweep

STUDY = """\
name: lent
question: When is it scored?
hypothesis: While others wait.
train:
  backbone: {name: quickstart-tiny, pretrained: quickstart}
  prompts: {num_global: 2}
  text: {num_context: 2}
  data: {dataset: motions, num_frames: 4, stride: 2, augment: {rand_augment: null}}
  epochs: 1
  batch_size: 8
  num_threads: 1
search_space: {optimizer.lr: {type: float, low: 1e-3, high: 1e-2, log: true}}
search: {num_trials: 3, sampler: {name: random}}
resources: {cpus_per_worker: 2, max_concurrent_trials: 1}
benchmarks: [{dataset: motions, split: val, mode: supervised}]
"""


@pytest.mark.timeout(2 * PATIENCE_S)
def test_scoring_gets_the_slot_of_a_full_cluster_before_the_last_trial_trains(
    shared_cluster: RayCluster, motion_dataset: str, mlflow_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    environment = {
        **shared_cluster.environment,
        "RAY_ADDRESS": shared_cluster.address,
        "VITACLIP_STORE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": mlflow_uri,
    }
    log = tmp_path / "log.txt"
    sweep = start_sweep(tmp_path, log, environment)
    assert sweep.wait(PATIENCE_S) == 0, log.read_text()
    record = StudyRecord(LocalStore(tmp_path / "store"), "lent")
    first, *_, last = record.results()
    [attempt] = record.trial(last.number).attempts
    assert first.finished_at < attempt.began_at
