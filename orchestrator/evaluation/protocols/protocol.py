"""What a benchmark asks of a protocol. Knows no model: :mod:`orchestrator.evaluation.benchmark`
computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from orchestrator.config import BenchmarkConfig
from orchestrator.storage.records.score import SplitScore
from vitaclip.data.datasets import CLASS_LISTS
from vitaclip.data.manifest import read_class_list

TEMPLATES = CLASS_LISTS.with_name("templates")


@dataclass(frozen=True)
class ClassTexts:
    """What a model reads for each class of a split."""

    # sentences in which {} is the class name, averaged; none: the plain name
    templates: tuple[str, ...]
    # with the context that was learned for the class, if the model was trained on classes at all
    learned: bool = False


class EvaluationProtocol(ABC):
    """How one benchmark is scored. Each protocol says what is different in it."""

    # Whether the classes are new to a trained model.
    has_new_classes: ClassVar[bool]

    def __init__(self, benchmark: BenchmarkConfig) -> None:
        self.benchmark = benchmark

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the dataset to score, in order."""
        return self.benchmark.splits

    @abstractmethod
    def class_texts(self, split: str) -> ClassTexts:
        """What a model reads for the classes of one of these splits."""

    def summarize(self, splits: Sequence[SplitScore]) -> dict[str, float]:
        """The benchmark's metrics: means over its splits; top-1's spread over them and 95% interval
        over clips.
        """
        # takes most of a second: it brings scipy
        from orchestrator.evaluation.statistics import accuracy_interval, mean_and_std, outcomes

        top1, top1_std = mean_and_std([split.top1 for split in splits])
        interval = accuracy_interval([outcomes(split) for split in splits])
        metrics = {
            "top1": top1,
            "top5": mean_and_std([split.top5 for split in splits])[0],
            "top1_ci95_low": interval.low,
            "top1_ci95_high": interval.high,
            "num_clips": sum(len(split.clips) for split in splits),
            "num_broken": sum(split.num_broken for split in splits),
            "num_missing": sum(split.num_missing for split in splits),
        }
        if len(splits) > 1:
            metrics["top1_std"] = top1_std
        return {f"{self.benchmark.name}/{key}": value for key, value in metrics.items()}

    @property
    def templates(self) -> tuple[str, ...]:
        """The benchmark's templates; those of CLIP's paper by the name of the data set it wrote
        them for.
        """
        templates = self.benchmark.templates
        if isinstance(templates, str):
            return read_class_list(TEMPLATES / f"{templates}.txt")
        return templates
