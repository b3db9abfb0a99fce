"""What an MLflow holds, found by names."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run


def experiment_of(client: MlflowClient, name: str) -> Experiment:
    """The experiment of this name; AssertionError if there is none."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, f"MLflow has no experiment '{name}'"
    return experiment


def runs_of(client: MlflowClient, name: str) -> list[Run]:
    """All runs of the experiment of this name; AssertionError if there is none."""
    return list(client.search_runs([experiment_of(client, name).experiment_id]))
