"""Blends of a trial with the frozen CLIP: for each trial one curve from new classes to trained
ones, and the point on it that the development classes choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.storage.records.score import BenchmarkScore


@dataclass(frozen=True)
class BlendPoint:
    """One blend's accuracy on one benchmark, with its 95% interval over clips."""

    top1: float
    low: float
    high: float


@dataclass(frozen=True)
class Front:
    """One trial's blends. ``alpha`` is the training's share: 0 is the frozen CLIP."""

    # by alpha, then by the benchmark's name
    points: dict[float, dict[str, BlendPoint]]
    # None: there is no development benchmark to choose by
    chosen: float | None

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that every point has."""
        return sorted(set.intersection(*(set(found) for found in self.points.values())))


def front_of(scores: Sequence[BenchmarkScore]) -> Front | None:
    """The front of a trial's scores; None: it has no blends.

    The blend is chosen whose mean top-1 over the benchmarks of mode ``development`` is best; of
    equal ones that with the larger share of the training.
    """
    points: dict[float, dict[str, BlendPoint]] = {}
    for score in scores:
        name = score.benchmark.name
        for blend in score.blends:
            low, high = (blend.metrics[f"{name}/top1_ci95_{end}"] for end in ("low", "high"))
            point = BlendPoint(blend.metrics[f"{name}/top1"], low, high)
            points.setdefault(blend.alpha, {})[name] = point
    if not points:
        return None
    return Front(dict(sorted(points.items())), _chosen(scores))


def _chosen(scores: Sequence[BenchmarkScore]) -> float | None:
    totals: dict[float, float] = {}
    choosing = [score for score in scores if score.benchmark.mode == "development" and score.blends]
    for score in choosing:
        for blend in score.blends:
            top1 = blend.metrics[f"{score.benchmark.name}/top1"]
            totals[blend.alpha] = totals.get(blend.alpha, 0.0) + top1
    return max(totals, key=lambda alpha: (totals[alpha], alpha), default=None)
