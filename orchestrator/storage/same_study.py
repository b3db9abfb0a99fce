"""Whether a later start of a study asks the same question of the same data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from orchestrator.config import StudyConfig
from orchestrator.dotted import flatten
from orchestrator.storage.records.study import StudyInputs
from vitaclip.errors import InputError

# What may change between two starts of one study: how long and on what it runs, not what it
# measures.
MAY_CHANGE = (
    "question",
    "hypothesis",
    "resources",
    "benchmarks",
    "search.num_trials",
    "search.patience",
    "search.max_",
)


def config_hash(config: StudyConfig) -> str:
    """SHA-256 over everything that decides what the study measures."""
    return hashlib.sha256(json.dumps(_identity(config), sort_keys=True).encode()).hexdigest()


def check_same_config(place: str, before: StudyConfig, now: StudyConfig) -> None:
    """Raises InputError, naming every difference in what the study measures."""
    old, new = _identity(before), _identity(now)
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if differing:
        lines = [
            f"  {key}: {json.dumps(old.get(key))}, found {json.dumps(new.get(key))}"
            for key in differing
        ]
        raise InputError(
            f"{place} was started with other values:\n"
            + "\n".join(lines)
            + "\ngive the new study another name (--set name=...), or restore the values"
        )


def check_same_inputs(place: str, before: StudyInputs, now: StudyInputs) -> None:
    """Raises InputError, naming every input that is known but has changed."""
    if differing := before.differences(now):
        raise InputError(
            f"{place} was started on other data:\n"
            + "\n".join(f"  {text}" for text in differing)
            + "\ngive the new study another name (--set name=...), or restore what was there"
        )


def _identity(config: StudyConfig) -> dict[str, Any]:
    flat = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if not key.startswith(MAY_CHANGE)}
