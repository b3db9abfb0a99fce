"""Weights & Biases: its server, or files on this machine that ``wandb sync`` uploads later."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import wandb

from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.wandb.writer import WandbWriter, run_id
from vitaclip.errors import InputError

PROJECT = "vitaclip"


class WandbService:
    """Weights & Biases as a tracking service. Its own environment variables say where it is:
    ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_API_KEY``.
    """

    name = "Weights & Biases"

    def __init__(self) -> None:
        self._folder = Path(os.environ.get("WANDB_DIR") or ".").absolute()
        self._is_offline = os.environ.get("WANDB_MODE") == "offline"
        self._project = os.environ.get("WANDB_PROJECT") or PROJECT
        base_url = os.environ.get("WANDB_BASE_URL") or "its public server"
        self.address = str(self._folder / "wandb") if self._is_offline else base_url

    def check(self) -> None:
        """Raises InputError if W&B has neither a folder to write to nor a key for its server."""
        if not self._is_offline:
            if not wandb.api.api_key:
                raise InputError(
                    "Weights & Biases: found no API key; set WANDB_API_KEY or run `wandb login`, "
                    "or set WANDB_MODE=offline to write files that `wandb sync` uploads later"
                )
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise InputError(
                f"WANDB_DIR: the folder {self._folder} cannot be written: {error}; name another"
            ) from None

    def writer(self, record: StudyRecord) -> WandbWriter:
        """For one study."""
        return WandbWriter(record, self._project, self._folder, is_offline=self._is_offline)

    def how_to_compare(self, record: StudyRecord) -> str:
        """Where the study's runs are, and how they get to a server."""
        if self._is_offline:
            pattern = self._folder / "wandb" / f"offline-run-*-{run_id(record, '*')}"
            return f"wandb sync {pattern} and open the project {self._project}"
        return f"project {self._project}, group {record.name}"

    def reason(self, error: Exception) -> str:
        """What the error says."""
        return str(error) or type(error).__name__
