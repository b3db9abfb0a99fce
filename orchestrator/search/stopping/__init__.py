"""Rules that stop hopeless trials early, a file each.

A new rule is a name in :class:`orchestrator.config.SchedulerConfig`, a file here, and its line
below, which mypy asks for.
"""

from __future__ import annotations

from typing import assert_never

from orchestrator.config import SchedulerConfig
from orchestrator.search.stopping.asha import Asha
from orchestrator.search.stopping.hyperband import Hyperband
from orchestrator.search.stopping.median import Median
from orchestrator.search.stopping.none import NeverStop
from orchestrator.search.stopping.rule import StoppingRule


def stopping_rule(config: SchedulerConfig) -> StoppingRule:
    """The rule that ``search.scheduler`` names."""
    match config.name:
        case "asha":
            return Asha(config)
        case "hyperband":
            return Hyperband(config)
        case "median":
            return Median(config)
        case "none" | "pbt":
            return NeverStop()
        case unknown:
            assert_never(unknown)
