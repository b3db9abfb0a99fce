"""Classes that were never trained on, kept apart to choose by: here a blend with the frozen CLIP is
chosen, so that the benchmarks stay untouched.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClassTexts


class Development(BenchmarkConfig):
    """Read as zero-shot classes are. What is chosen here is reported on the other benchmarks."""

    mode: Literal["development"] = Field(description="The protocol.")

    has_new_classes = True

    def class_texts(self, split: str) -> ClassTexts:
        return ClassTexts(self.sentences)
