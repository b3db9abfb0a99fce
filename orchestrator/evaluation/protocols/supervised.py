"""The classes of the training, on clips that were not trained on."""

from __future__ import annotations

from orchestrator.evaluation.protocols.protocol import ClassTexts, EvaluationProtocol


class Supervised(EvaluationProtocol):
    """A trained model reads its classes with their learned context, the frozen CLIP their
    names.
    """

    has_new_classes = False

    def class_texts(self, split: str) -> ClassTexts:
        return ClassTexts(self.templates, learned=True)
