"""All methods in one study: each is trained, scored, shown, tracked, reported and predicts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from mlflow import MlflowClient

from orchestrator.cli import main
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.mlflow_runs import runs_of
from vitaclip.config import MethodName
from vitaclip.prediction import predict

METHODS = sorted({*get_args(MethodName)} - {"frozen_clip"})


@pytest.fixture
def workplace(
    small_training: dict[str, Any],
    mlflow_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    study = {
        "name": "methods",
        "question": "Which method?",
        "hypothesis": "Each runs.",
        "train": small_training
        | {
            "backbone": {"name": "quickstart-tiny", "pretrained": "quickstart"},
            "epochs": 1,
            "optimizer": {"lr": 1e-3},
        },
        "search_space": {
            "method.name": {"type": "categorical", "choices": METHODS},
            "method.lora.rank": {
                "type": "categorical",
                "choices": [2],
                "when": {"method.name": "lora"},
            },
        },
        "search": {
            "num_trials": len(METHODS),
            "sampler": {"name": "random"},
            "first_points": [
                {"method.name": name} | ({"method.lora.rank": 2} if name == "lora" else {})
                for name in METHODS
            ],
        },
        "benchmarks": [
            {"dataset": "motions", "split": "val", "mode": mode}
            for mode in ("zero_shot", "supervised")
        ],
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    # short: it holds Ray's sockets
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_study_of_all_methods(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "study.yaml"]) == 0, capsys.readouterr().err
    record = StudyRecord(open_store(str(workplace / "store")), "methods")
    found = {record.trial(r.number).info.train.method.name: r for r in record.results()}
    assert sorted(found) == METHODS
    assert {result.state for result in found.values()} == {"complete"}
    client = MlflowClient()
    runs = {run.data.params.get("method.name") for run in runs_of(client, "methods")}
    assert runs >= set(METHODS)
    assert client.search_registered_models()
    assert main(["report", "methods"]) == 0
    assert main(["show", "methods"]) == 0
    shown = capsys.readouterr().out
    video = next(Path(os.environ["VITACLIP_DATA_MOTIONS"]).rglob("*.mp4"))
    for name, result in found.items():
        assert name in shown
        benchmarks = record.scores(result.number).read_all()
        assert {score.benchmark.mode for score in benchmarks} == {"zero_shot", "supervised"}
        key = record.trial(result.number).best_checkpoint(record.objective)
        folder = workplace / "checkpoints" / name
        record.store.download_folder(str(key), folder)
        assert predict(folder, [video])[0].classes
