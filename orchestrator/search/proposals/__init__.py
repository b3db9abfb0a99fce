"""Ways of proposing points, a file each."""

from __future__ import annotations

from orchestrator.config import StudyConfig
from orchestrator.search.proposals.optuna_sampler import OptunaSampler
from orchestrator.search.proposals.pbt import PopulationBasedTraining
from orchestrator.search.proposals.proposer import Proposer


def proposer_of(config: StudyConfig) -> Proposer:
    """The way of proposing that ``search.sampler`` and ``search.scheduler`` name."""
    sampler = OptunaSampler(config)
    if config.search.scheduler.name == "pbt":
        return PopulationBasedTraining(config, first=sampler)
    return sampler
