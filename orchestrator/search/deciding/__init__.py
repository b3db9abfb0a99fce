"""Ways of taking a study's decisions: from all that is known, or from a fixed set of trials."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config import StudyConfig
from orchestrator.search.deciding.asynchronous import Asynchronous
from orchestrator.search.deciding.decider import Decider
from orchestrator.search.deciding.lagged import Lagged
from orchestrator.search.outcome import Outcome
from orchestrator.storage.study_record import StudyRecord


def decider_of(
    config: StudyConfig, record: StudyRecord, outcomes: Mapping[int, Outcome]
) -> Decider:
    """The way that ``search.lag`` asks for; ``outcomes`` are the study's, and grow with it."""
    if config.search.lag is None:
        return Asynchronous(config, record, outcomes)
    return Lagged(config, record, outcomes)
