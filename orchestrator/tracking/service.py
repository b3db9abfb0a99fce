"""What a tracking service is to this project, and the one that the settings choose.

A tracking service shows a study's record to people: MLflow, Weights & Biases. Nothing in it is a
second truth. A new service is a new file here and a case in :func:`open_service`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol, assert_never

from pydantic import TypeAdapter, ValidationError

from orchestrator.settings import Settings
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError

TrackerName = Literal["mlflow", "wandb"]


class StudyWriter(Protocol):
    """Writes one study's record into a service.

    Every method looks at what is there before it writes, so all may be repeated after any failure,
    and each trial and epoch still appears exactly once. Calls come from one thread.
    """

    def reconcile(self) -> None:
        """Brings the service up to the record."""

    def log_epochs(self, number: int) -> None:
        """Adds the epochs of a trial that the service lacks."""

    def log_finished(self, number: int) -> None:
        """Completes a trial whose result is in the store."""

    def log_scores(self, numbers: Sequence[int]) -> None:
        """Adds scores that were computed after these trials had finished."""

    def log_report(self, folder: Path) -> bool:
        """Adds a report's files to the study; False if the service does not know the study."""

    def system_metrics(self) -> AbstractContextManager[None]:
        """Logs this machine's load until the end of the block."""

    def stop(self) -> None:
        """Gives all that is still open its state: the study has ended, or was interrupted."""


class TrackingService(Protocol):
    """A service at the place that the settings name."""

    # as people call it
    name: str
    # where it is, without a password
    address: str

    def check(self) -> None:
        """Asks the service one question, or makes what it needs on this machine.

        Raises:
            InputError: it cannot be used; says what to do.
        """

    def writer(self, record: StudyRecord) -> StudyWriter:
        """For one study."""

    def how_to_compare(self, record: StudyRecord) -> str:
        """What a user does to see the study's trials side by side, in one line."""

    def reason(self, error: Exception) -> str:
        """Why a call failed, in one line without secrets."""


def open_service(settings: Settings) -> TrackingService:
    """The service that ``VITACLIP_TRACKER`` names. Nothing is contacted yet.

    Raises:
        InputError: there is no such service.
    """
    # A service's package takes seconds to import: only the one in use is.
    match _checked_name(settings.tracker):
        case "mlflow":
            from orchestrator.tracking.mlflow.service import MlflowService

            return MlflowService(settings.tracking_uri)
        case "wandb":
            from orchestrator.tracking.wandb.service import WandbService

            return WandbService()
        case name:
            assert_never(name)


def _checked_name(name: str) -> TrackerName:
    try:
        return TypeAdapter(TrackerName).validate_python(name)
    except ValidationError as error:
        allowed = error.errors()[0]["ctx"]["expected"]
        raise InputError(f"VITACLIP_TRACKER: found {name!r}, allowed are {allowed}") from None
