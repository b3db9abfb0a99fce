"""What the commands share: how studies and trials are named, and how accuracies are printed."""

from __future__ import annotations

import json
import re

from orchestrator.reporting.study_data import StudyData, read_study
from orchestrator.settings import Settings
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError
from vitaclip.terminal import Terminal


def open_record(name: str) -> StudyRecord:
    """The record of an existing study. Raises InputError if there is none of this name."""
    record = StudyRecord(open_store(Settings().store_uri), name)
    _ = record.info
    return record


def read_data(record: StudyRecord) -> StudyData:
    """What a report is made of. Warns of what had to be left out."""
    data = read_study(record)
    for problem in data.unreadable:
        warn(f"left out: {problem}")
    return data


def parse_trial(reference: str) -> tuple[str, int]:
    """Splits ``STUDY/NUMBER``. Raises InputError for anything else."""
    match = re.fullmatch(r"([^/]+)/(\d+)", reference)
    if not match:
        raise InputError(f"found {reference!r}, allowed is STUDY/NUMBER, such as prompt_depth/3")
    return match[1], int(match[2])


def warn(text: str) -> None:
    """One line beside the output, which stays what scripts read."""
    Terminal(stderr=True).print(text, style="yellow", soft_wrap=True)


def print_json(value: object) -> None:
    """Prints a value for scripts."""
    Terminal().print(json.dumps(value, indent=1, allow_nan=False), soft_wrap=True)
