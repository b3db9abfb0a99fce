"""Writes a study's report, and adds it to what the tracking service shows of the study."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from orchestrator.commands import common
from orchestrator.reporting.page import write_report
from orchestrator.settings import Settings
from orchestrator.tracking.service import open_service
from vitaclip.errors import VitaClipError
from vitaclip.terminal import Terminal


def report_study(study: str, folder: Path) -> None:
    """Writes a study's report into ``folder`` and logs it to MLflow. Raises InputError."""
    mpl.use("Agg")
    record, console = common.open_record(study), Terminal()
    write_report(common.read_data(record), folder)
    console.print(f"{folder / 'report.html'}", soft_wrap=True)
    service = open_service(Settings())
    try:
        service.check()
        logged = service.writer(record).log_report(folder)
    except VitaClipError as error:
        console.print(f"not logged to {service.name}: {error}", soft_wrap=True)
    else:
        console.print(
            f"logged to the study's run in {service.name}"
            if logged
            else f"{service.name} has no run of this study"
        )
