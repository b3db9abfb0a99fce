"""How two trials differ, and whether the difference is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.commands import common
from orchestrator.commands.show import trial_content
from orchestrator.display.published import published_table
from orchestrator.dotted import flatten
from orchestrator.evaluation.pairing import NO_CHOICE, Choice, PairedScore, paired_scores
from orchestrator.evaluation.ranking import best_first
from orchestrator.storage.study_record import StudyRecord
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

_BARS = "▁▂▃▄▅▆▇█"


def compare_trials(name_a: str, name_b: str, *, as_json: bool) -> None:
    """Prints what differs between two trials, each ``STUDY/NUMBER``. Raises InputError."""
    (study_a, a), (study_b, b) = map(common.parse_trial, (name_a, name_b))
    record_a, record_b = common.open_record(study_a), common.open_record(study_b)
    first, second = trial_content(record_a, a), trial_content(record_b, b)
    choice = max(_choice(record_a, a), _choice(record_b, b), key=lambda choice: choice.num_trials)
    [pairs] = paired_scores(record_a.scores(a).read_all(), [record_b.scores(b).read_all()], choice)
    if as_json:
        common.print_json(_as_json(first, second, pairs))
        return
    console = Terminal()
    console.print(_config_table(name_a, name_b, first, second))
    console.print(_metrics_table(name_a, name_b, first, second, record_a))
    console.print(_paired_table(name_a, name_b, pairs))
    if note := _note_on_choice(pairs):
        console.print(note, soft_wrap=True)
    names = [pair.benchmark for pair in pairs]
    if published := published_table(names, record_a.trial(a).info.train.data):
        console.print(published)


def _choice(record: StudyRecord, number: int) -> Choice:
    """How this trial was chosen, if it is its study's best one."""
    results = best_first(record.info.config, record.results())
    is_best = bool(results) and results[0].number == number
    if not is_best:
        return NO_CHOICE
    return Choice.of_best(record.trial(number).info.train.data, len(results))


def _as_json(
    first: dict[str, Any], second: dict[str, Any], pairs: Sequence[PairedScore]
) -> dict[str, Any]:
    return {
        "config": {key: list(values) for key, values in _differences(first, second).items()},
        "metrics": [first.get("metrics", {}), second.get("metrics", {})],
        "history": [first["history"], second["history"]],
        "benchmarks": [{**asdict(pair), "verdict": pair.verdict} for pair in pairs],
    }


def _differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    a, b = flatten(first["train"]), flatten(second["train"])
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    }


def _config_table(
    name_a: str, name_b: str, first: dict[str, Any], second: dict[str, Any]
) -> FittedTable:
    columns = [Column("differs"), *(Column(name, is_text=True) for name in (name_a, name_b))]
    rows = [[key, *map(str, values)] for key, values in _differences(first, second).items()]
    return FittedTable("training config", columns, rows)


def _metrics_table(
    name_a: str, name_b: str, first: dict[str, Any], second: dict[str, Any], record: StudyRecord
) -> FittedTable:
    a, b = first.get("metrics", {}), second.get("metrics", {})
    rows = [
        [key, *(f"{side[key]:.4g}" if key in side else "-" for side in (a, b))]
        for key in sorted(a.keys() | b.keys())
    ]
    metric = record.objective.metric
    curves = [
        [metrics[metric] for metrics in side["history"] if metric in metrics]
        for side in (first, second)
    ]
    rows.append([f"{metric} by epoch", *(_sparkline(curve, curves) for curve in curves)])
    columns = [Column("metric"), *(Column(name, is_text=True) for name in (name_a, name_b))]
    return FittedTable("best epoch", columns, rows)


def _sparkline(curve: Sequence[float], curves: Sequence[Sequence[float]]) -> str:
    values = [value for other in curves for value in other]
    low, span = (
        min(values, default=0.0),
        (max(values, default=0.0) - min(values, default=0.0)) or 1.0,
    )
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in curve) or "-"


def _paired_table(name_a: str, name_b: str, pairs: Sequence[PairedScore]) -> FittedTable:
    columns = [
        Column("benchmark"),
        Column(name_a),
        Column(name_b),
        Column("only first right", importance=3),
        Column("only second right", importance=3),
        Column("p (corrected)", importance=2),
        Column("verdict", importance=1, is_text=True),
    ]
    rows = [
        [
            pair.benchmark,
            *(f"{value:.3f}" for value in pair.top1),
            str(pair.only_first),
            str(pair.only_second),
            f"{pair.p_value:.3g}",
            pair.verdict,
        ]
        for pair in pairs
    ]
    return FittedTable("top-1 on the same clips", columns, rows)


def _note_on_choice(pairs: Sequence[PairedScore]) -> str | None:
    """What the comparison makes of a trial that was chosen from many."""
    num_choices = max((pair.num_choices for pair in pairs), default=1)
    if num_choices == 1:
        return None
    return (
        f"One of the two was chosen from {num_choices} trials on clips of the search; there, p is "
        f"multiplied by {num_choices}."
    )
