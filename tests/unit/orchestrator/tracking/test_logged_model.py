"""The best trial as a registered MLflow model, loaded and used in a process that knows nothing
else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.registry import MODEL_TAG
from orchestrator.tracking.mlflow.writer import MlflowWriter
from testing.mlflow_runs import experiment_of
from testing.study_fixtures import STARTED, begin, finish, study_config
from vitaclip.config import TrainConfig
from vitaclip.train import EpochEnd, fit

PREDICT = """
import json, sys
import open_clip
open_clip.add_model_config(sys.argv[3])
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = [
    model.predict([{"video": sys.argv[2]}]),
    model.predict([{"video": sys.argv[2]}, {"video": "none.mp4"}], {"classes": "a,b"}),
]
print(json.dumps([row.to_dict("records") for row in rows]))
"""


@pytest.fixture(scope="module")
def record(small_training: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """A finished study of one trained trial."""
    folder = tmp_path_factory.mktemp("study")
    train = small_training | {"epochs": 1}
    record = StudyRecord(LocalStore(folder / "store"), "depth")
    record.create_or_check(study_config(train=train, benchmarks=[], search={"num_trials": 1}), {})
    trial = TrialInfo(
        number=0,
        params={"prompts.depth": 1},
        train=TrainConfig.model_validate(train),
        proposed_at=STARTED,
    )
    record.write_trial(trial)

    attempt = begin(record, 0)

    def publish(end: EpochEnd) -> None:
        end.save(folder / "checkpoint")
        publish_checkpoint(record, 0, attempt, folder / "checkpoint", end.history)

    fit(trial.train, on_epoch_end=publish)
    finish(record, trial, "complete", 0.5)
    return record


@pytest.mark.parametrize(
    "step",
    [
        "create_logged_model",
        "log_model_artifacts",
        "log_outputs",
        "finalize_logged_model",
        "create_registered_model",
        "create_model_version",
        "set_tag",
    ],
)
def test_an_answer_lost_at_registration_makes_no_second_model(
    record: StudyRecord, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    MlflowWriter(mlflow_uri, record).reconcile()
    taken = getattr(MlflowClient, step)

    def lose_answer(*arguments: object, **options: object) -> None:
        taken(*arguments, **options)
        raise ConnectionError("the answer was lost")

    writer = MlflowWriter(mlflow_uri, record)
    writer.reconcile()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, lose_answer)
        with pytest.raises(ConnectionError):
            writer.stop()
    writer = MlflowWriter(mlflow_uri, record)
    writer.reconcile()
    writer.stop()
    client = MlflowClient(mlflow_uri)
    [model] = client.search_logged_models([experiment_of(client, "depth").experiment_id])
    [version] = client.search_model_versions("name = 'depth'")
    assert (model.status, version.source) == (LoggedModelStatus.READY, model.artifact_location)


def test_the_best_model_predicts_in_a_fresh_process(
    record: StudyRecord,
    motion_dataset: str,
    empty_database: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tracking.db").write_bytes(empty_database)
    uri = f"sqlite:///{tmp_path}/tracking.db"  # not where this process's MLflow looks by itself
    for _ in range(2):
        writer = MlflowWriter(uri, record)
        writer.reconcile()
        writer.stop()
    client = MlflowClient(uri)
    [version] = client.search_model_versions("name = 'depth'")
    run = client.get_run(str(version.run_id))
    assert version.source == client.get_logged_model(run.data.tags[MODEL_TAG]).artifact_location

    names = tmp_path / "ViT-test-small.json"
    names.write_text(json.dumps(open_clip.get_model_config("ViT-test-small")))
    video = next(Path(os.environ["VITACLIP_DATA_MOTIONS"]).glob("val_*.mp4"))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, "models:/depth/1", str(video), str(names)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [trained], [chosen, broken] = json.loads(done.stdout.splitlines()[-1])
    assert len(trained["labels"]) == 4
    assert sum(trained["probabilities"]) == pytest.approx(1)
    assert sorted(chosen["labels"]) == ["a", "b"]
    assert (broken["labels"], chosen["error"]) == ([], "")
    assert "none.mp4" in broken["error"]
