"""Classes by their names alone: those that a model never saw."""

from __future__ import annotations

from orchestrator.evaluation.protocols.protocol import ClassTexts, EvaluationProtocol


class ZeroShot(EvaluationProtocol):
    """Every model reads plain names, or sentences around them."""

    has_new_classes = True

    def class_texts(self, split: str) -> ClassTexts:
        return ClassTexts(self.templates)
