"""A study's best model in MLflow: logged with its run, and registered under the study's name."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.models import Model

from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow import video_classifier
from orchestrator.tracking.mlflow.client import texts
from orchestrator.tracking.mlflow.runs import STUDY_TAG, TRIAL_TAG
from vitaclip.checkpoint import drop_optimizer

MODEL_TAG = "vitaclip.model_id"


def register_best(client: MlflowClient, record: StudyRecord, result: TrialResult, run: Run) -> None:
    """Logs the best trial's checkpoint as an MLflow model and registers it under the study's name,
    once.

    Each step looks first at what is there: MLflow may have taken one whose answer was lost.

    Args:
        client: MLflow's.
        record: the study's.
        result: of the best trial.
        run: of that trial.
    """
    if result.checkpoint is None or MODEL_TAG in run.data.tags:
        return
    tags = {STUDY_TAG: record.info.id, TRIAL_TAG: str(result.number)}
    name = f"{record.name}-trial-{result.number:04d}"
    models = client.search_logged_models([run.info.experiment_id], f"name = '{name}'")
    model = next((model for model in models if model.source_run_id == run.info.run_id), None)
    if model is None:
        model = client.create_logged_model(
            run.info.experiment_id, name, run.info.run_id, tags, texts(result.params), "vitaclip"
        )
    if model.status != LoggedModelStatus.READY:
        _log_files(client, record, result, model)
    _register(client, record, model, run.info.run_id)
    client.set_tag(run.info.run_id, MODEL_TAG, model.model_id)


def _log_files(
    client: MlflowClient, record: StudyRecord, result: TrialResult, model: LoggedModel
) -> None:
    run_id, key = str(model.source_run_id), str(result.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, model_folder = Path(folder) / "checkpoint", Path(folder) / "model"
        record.store.download_folder(key, checkpoint)
        drop_optimizer(checkpoint)
        video_classifier.save(
            checkpoint, model_folder, Model(run_id=run_id, model_id=model.model_id)
        )
        client.log_model_artifacts(model.model_id, str(model_folder))
    outputs = client.get_run(run_id).outputs
    if not any(
        output.model_id == model.model_id for output in (outputs.model_outputs if outputs else [])
    ):
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, result.best_epoch or 0)])
    client.finalize_logged_model(model.model_id, "READY")


def _register(client: MlflowClient, record: StudyRecord, model: LoggedModel, run_id: str) -> None:
    name = record.name
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description=record.info.config.question)
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
    if any(version.source == model.artifact_location for version in versions):
        return
    # Not "models:/<id>": a database's client looks that up at the process's tracking URI, not at
    # its own.
    client.create_model_version(
        name, model.artifact_location, run_id, model_id=model.model_id, await_creation_for=0
    )
