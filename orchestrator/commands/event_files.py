"""Writes a study's event files for TensorBoard."""

from __future__ import annotations

import shlex
from pathlib import Path

from orchestrator.commands import common
from orchestrator.reporting.tensorboard_view import write_event_files
from vitaclip.terminal import Terminal


def export_event_files(study: str, folder: Path) -> None:
    """Writes into ``folder``, and prints how to open it. Raises InputError."""
    write_event_files(common.read_data(common.open_record(study)), folder)
    Terminal().print(shlex.join(["tensorboard", "--logdir", str(folder)]), soft_wrap=True)
