"""Ways of scoring a model on a benchmark, a file each.

A new protocol is a name in :data:`orchestrator.config.ProtocolName`, a file here, and its line
below, which mypy asks for.
"""

from __future__ import annotations

from typing import assert_never

from orchestrator.config import BenchmarkConfig
from orchestrator.evaluation.protocols.protocol import EvaluationProtocol
from orchestrator.evaluation.protocols.supervised import Supervised
from orchestrator.evaluation.protocols.zero_shot import ZeroShot


def protocol_of(benchmark: BenchmarkConfig) -> EvaluationProtocol:
    """The protocol that ``mode`` names."""
    match benchmark.mode:
        case "zero_shot":
            return ZeroShot(benchmark)
        case "supervised":
            return Supervised(benchmark)
        case unknown:
            assert_never(unknown)
