"""``python -m orchestrator.compare A B``: how two trials differ, and whether the difference is one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator import command
from orchestrator.evaluation.statistics import mcnemar_p_value
from orchestrator.show import trial_content
from orchestrator.storage.records import BenchmarkScore, flatten
from orchestrator.storage.study_record import StudyRecord

SIGNIFICANCE = 0.05
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class PairedScore:
    """Two models on the same clips of one benchmark."""

    benchmark: str
    top1: tuple[float, float]
    only_first: int  # clips that the first got right and the second wrong
    only_second: int
    p_value: float  # exact McNemar test

    @property
    def verdict(self) -> str:
        """In words; a difference is called one only where it is."""
        if self.p_value >= SIGNIFICANCE:
            return "no difference shown"
        return "first is better" if self.only_first > self.only_second else "second is better"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.compare", description=__doc__)
    parser.add_argument("first", metavar="STUDY/NUMBER")
    parser.add_argument("second", metavar="STUDY/NUMBER")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return command.run(parser, _compare, arguments)


def _compare(options: argparse.Namespace, console: Console) -> None:
    (study_a, a), (study_b, b) = map(command.parse_trial, (options.first, options.second))
    record_a, record_b = command.open_study(study_a), command.open_study(study_b)
    first, second = trial_content(record_a, a), trial_content(record_b, b)
    pairs = paired_scores(record_a.scores(a), record_b.scores(b))
    if options.json:
        command.print_json(console, _as_json(first, second, pairs))
        return
    console.print(_config_table(options.first, options.second, first, second))
    console.print(_metrics_table(options.first, options.second, first, second, record_a))
    console.print(_paired_table(options.first, options.second, pairs))


def paired_scores(first: Sequence[BenchmarkScore], second: Sequence[BenchmarkScore]) -> list[PairedScore]:
    """The benchmarks on which both were scored by the same protocol and read the same clips."""
    by_benchmark = {score.benchmark: score for score in second}
    pairs = ((score, by_benchmark.get(score.benchmark)) for score in first)
    return [_pair(one, other) for one, other in pairs if other is not None and _clips(one) == _clips(other)]


def _pair(first: BenchmarkScore, second: BenchmarkScore) -> PairedScore:
    outcomes = [
        (right, other.correct[clip])
        for one, other in zip(first.splits, second.splits, strict=True)
        for clip, right in one.correct.items()
    ]
    only_first = sum(a and not b for a, b in outcomes)
    only_second = sum(b and not a for a, b in outcomes)
    name = first.benchmark.name
    top1 = (first.metrics[f"{name}/top1"], second.metrics[f"{name}/top1"])
    return PairedScore(name, top1, only_first, only_second, mcnemar_p_value(only_first, only_second))


def _clips(score: BenchmarkScore) -> list[tuple[object, ...]]:
    return [(split.split, split.classes, split.clips, split.labels) for split in score.splits]


def _as_json(first: dict[str, Any], second: dict[str, Any], pairs: Sequence[PairedScore]) -> dict[str, Any]:
    return {
        "config": {key: list(values) for key, values in _differences(first, second).items()},
        "metrics": [first.get("metrics", {}), second.get("metrics", {})],
        "history": [first["history"], second["history"]],
        "benchmarks": [{**asdict(pair), "verdict": pair.verdict} for pair in pairs],
    }


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    a, b = flatten(first["train"]), flatten(second["train"])
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _config_table(name_a: str, name_b: str, first: dict[str, Any], second: dict[str, Any]) -> Table:
    table = Table("differs", name_a, name_b, title="training config")
    for key, values in _differences(first, second).items():
        table.add_row(key, *map(str, values))
    return table


def _metrics_table(
    name_a: str, name_b: str, first: dict[str, Any], second: dict[str, Any], record: StudyRecord
) -> Table:
    table = Table("metric", name_a, name_b, title="best epoch")
    a, b = first.get("metrics", {}), second.get("metrics", {})
    for key in sorted(a.keys() | b.keys()):
        table.add_row(key, *(f"{side[key]:.4g}" if key in side else "-" for side in (a, b)))
    metric = record.objective.metric
    curves = [
        [metrics[metric] for metrics in side["history"] if metric in metrics] for side in (first, second)
    ]
    table.add_row(f"{metric} by epoch", *(_sparkline(curve, curves) for curve in curves))
    return table


def _sparkline(curve: Sequence[float], curves: Sequence[Sequence[float]]) -> str:
    values = [value for other in curves for value in other]
    low, span = min(values, default=0.0), (max(values, default=0.0) - min(values, default=0.0)) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in curve) or "-"


def _paired_table(name_a: str, name_b: str, pairs: Sequence[PairedScore]) -> Table:
    columns = ("benchmark", name_a, name_b, "only first right", "only second right", "p (McNemar)", "verdict")
    table = Table(*columns, title="top-1 on the same clips")
    for pair in pairs:
        counts = (str(pair.only_first), str(pair.only_second))
        tops = (f"{value:.3f}" for value in pair.top1)
        table.add_row(pair.benchmark, *tops, *counts, f"{pair.p_value:.3g}", pair.verdict)
    return table


if __name__ == "__main__":
    sys.exit(main())
