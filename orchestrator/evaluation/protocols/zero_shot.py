"""Classes by their names alone: those that a model never saw."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClassTexts


class ZeroShot(BenchmarkConfig):
    """Class names that were never trained on: every model reads plain names, or sentences around
    them.
    """

    mode: Literal["zero_shot"] = Field(description="The protocol.")

    has_new_classes = True

    def class_texts(self, split: str) -> ClassTexts:
        return self.plain_texts()
