"""Two models on the same clips: where they differ, and whether the difference is one.

The best trial was chosen because it did well on the clips of the search. On these very clips it
looks better than it is, the more so the more trials it was chosen from; there, its p-values are
multiplied by the number of trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.evaluation.statistics import clip_differences, holm, outcomes, paired_p_value
from orchestrator.storage.records.score import BenchmarkScore
from vitaclip.config import DataConfig

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class PairedScore:
    """Two models on the same clips of one benchmark. Clips count once, however many splits hold
    them.
    """

    benchmark: str
    top1: tuple[float, float]
    only_first: int  # clips on which the first did better
    only_second: int
    p_value: float  # corrected for choice and for the other comparisons beside it
    num_choices: int = 1  # trials from which one of the two was chosen on these clips

    @property
    def verdict(self) -> str:
        """In words; a difference is called one only where it is."""
        if self.p_value >= SIGNIFICANCE:
            return "no difference shown"
        return "first is better" if self.top1[0] > self.top1[1] else "second is better"


@dataclass(frozen=True)
class Choice:
    """From how many trials a model was chosen, and on which clips."""

    num_trials: int
    splits: frozenset[tuple[str, str]]  # (dataset, split)

    @classmethod
    def of_best(cls, data: DataConfig, num_trials: int) -> Choice:
        """How a study's best trial was chosen: by its objectives, on its own evaluation splits."""
        return cls(num_trials, frozenset((data.dataset, name) for name in data.scored_splits))

    def num_choices(self, benchmark: BenchmarkConfig) -> int:
        """From how many trials the model was chosen on clips of this benchmark: 1 means that it was
        not.
        """
        scored = benchmark.splits
        on_its_clips = any((benchmark.dataset, split) in self.splits for split in scored)
        return max(1, self.num_trials) if on_its_clips else 1


NO_CHOICE = Choice(1, frozenset())


def paired_scores(
    first: Sequence[BenchmarkScore],
    others: Sequence[Sequence[BenchmarkScore]],
    choice: Choice = NO_CHOICE,
) -> list[list[PairedScore]]:
    """One model against each of several others, on the benchmarks that both were scored on.

    Pairs are formed where the protocol and the clips read are the same. P-values are corrected for
    the choice of ``first`` and, by Holm's method, for all the pairs returned together.
    """
    pairs = [_pairs(first, other, choice) for other in others]
    corrected = iter(holm([pair.p_value for group in pairs for pair in group]))
    return [[replace(pair, p_value=next(corrected)) for pair in group] for group in pairs]


def _pairs(
    first: Sequence[BenchmarkScore], second: Sequence[BenchmarkScore], choice: Choice
) -> list[PairedScore]:
    by_benchmark = {score.benchmark: score for score in second}
    found = ((score, by_benchmark.get(score.benchmark)) for score in first)
    return [
        _pair(score, other, choice.num_choices(score.benchmark))
        for score, other in found
        if other is not None and _clips(score) == _clips(other)
    ]


def _pair(first: BenchmarkScore, second: BenchmarkScore, num_choices: int) -> PairedScore:
    pairs = list(zip(first.splits, second.splits, strict=True))
    # between both models, where an exchange of them on any clip changes no weight
    weights = first.benchmark.split_weights([(a.top1 + b.top1) / 2 for a, b in pairs])
    differences = clip_differences(
        [outcomes(a) for a, _ in pairs], [outcomes(b) for _, b in pairs], weights
    )
    name = first.benchmark.name
    return PairedScore(
        benchmark=name,
        top1=(first.metrics[f"{name}/top1"], second.metrics[f"{name}/top1"]),
        only_first=int((differences > 1e-12).sum()),
        only_second=int((differences < -1e-12).sum()),
        p_value=min(1.0, num_choices * paired_p_value(differences)),
        num_choices=num_choices,
    )


def _clips(score: BenchmarkScore) -> list[tuple[object, ...]]:
    return [(split.split, split.classes, split.files, split.labels) for split in score.splits]
