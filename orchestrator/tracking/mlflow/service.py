"""MLflow at a tracking URI: a server, a database, or the local ``mlflow.db``."""

from __future__ import annotations

from mlflow import MlflowClient

from orchestrator.settings import without_password
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.mlflow.client import check_tracking, reason
from orchestrator.tracking.mlflow.runs import find_experiment
from orchestrator.tracking.mlflow.writer import MlflowWriter


class MlflowService:
    """MLflow as a tracking service."""

    name = "MLflow"

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self.address = without_password(tracking_uri)

    def check(self) -> None:
        """Raises InputError if MLflow cannot be used; makes the local database."""
        check_tracking(self._uri)

    def writer(self, record: StudyRecord) -> MlflowWriter:
        """For one study."""
        return MlflowWriter(self._uri, record)

    def how_to_compare(self, record: StudyRecord) -> str:
        """The page with the study's runs, and how to serve it where no server does."""
        page = self._page(record)
        if self._uri.startswith("http"):
            return f"{self.address.rstrip('/')}/{page}"
        command = f"mlflow ui --backend-store-uri {self.address}"
        return f"{command} and open http://127.0.0.1:5000/{page}"

    def reason(self, error: Exception) -> str:
        """What lies at the bottom of an error."""
        return reason(error, self._uri)

    def _page(self, record: StudyRecord) -> str:
        """MLflow's own first page shows no runs."""
        try:
            experiment = find_experiment(MlflowClient(self._uri), record)
        # MLflow raises what its databases and servers raise. The results are safe without a page.
        except Exception:
            experiment = None
        return f"#/experiments/{experiment.experiment_id}/runs" if experiment else ""
