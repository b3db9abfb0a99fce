"""Half of the classes to train on, and the other half, which is new: ViFi-CLIP's protocol
(Rasheed et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig, ClassTexts
from orchestrator.storage.records.split_score import SplitScore
from vitaclip.config import SplitName


class BaseToNovel(BenchmarkConfig):
    """Base classes, which a trained model reads with their learned context, and novel ones, by
    their names. Its figure is the harmonic mean of both accuracies.
    """

    mode: Literal["base_to_novel"] = Field(description="The protocol.")
    split: tuple[SplitName, SplitName] = Field(
        ("base_val", "novel_val"),
        description="The split of the base classes, which were trained on, and that of the novel "
        "ones.",
    )

    has_new_classes = True

    def class_texts(self, split: str) -> ClassTexts:
        return self.plain_texts(learned=split == self.split[0])

    def accuracies(self, splits: Sequence[SplitScore]) -> dict[str, float]:
        """Those of the base and of the novel classes, and their harmonic mean with its interval."""
        from orchestrator.evaluation.statistics import (
            Interval,
            harmonic_mean,
            harmonic_mean_interval,
        )

        parts = {"base": super().accuracies(splits[:1]), "novel": super().accuracies(splits[1:])}
        top1 = [part["top1"] for part in parts.values()]
        interval = harmonic_mean_interval(
            top1, [Interval(p["top1_ci95_low"], p["top1_ci95_high"]) for p in parts.values()]
        )
        return {
            "top1": harmonic_mean(top1),
            "top1_ci95_low": interval.low,
            "top1_ci95_high": interval.high,
            **{f"{name}_{key}": part[key] for name, part in parts.items() for key in part},
        }

    def split_weights(self, top1: Sequence[float]) -> Sequence[float]:
        from orchestrator.evaluation.statistics import harmonic_mean_gradient

        return harmonic_mean_gradient(top1)
