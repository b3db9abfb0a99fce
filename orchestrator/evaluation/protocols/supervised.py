"""The classes of the training, on clips that were not trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClassTexts


class Supervised(BenchmarkConfig):
    """The trained classes: a trained model reads them with their learned context, the frozen CLIP
    their names.
    """

    mode: Literal["supervised"] = Field(description="The protocol.")

    has_new_classes = False

    def class_texts(self, split: str) -> ClassTexts:
        return self.plain_texts(learned=True)
