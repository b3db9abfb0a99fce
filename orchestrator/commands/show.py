"""Everything on record of a study or of one trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from orchestrator.commands import common
from orchestrator.display.published import published_table
from orchestrator.dotted import flatten
from orchestrator.evaluation.fronts import Front, front_of
from orchestrator.storage.study_record import StudyRecord
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal, shown


def show_study(name: str, *, as_json: bool) -> None:
    """Prints a study's record. Raises InputError if there is no such study."""
    record = common.open_record(name)
    info = record.info.model_dump(mode="json") | {"control": asdict(record.control())}
    if as_json:
        common.print_json(info)
    else:
        Terminal().print(_key_value_table(record.name, flatten(info)))


def show_trial(reference: str, *, as_json: bool) -> None:
    """Prints the record of ``STUDY/NUMBER``. Raises InputError if there is no such trial."""
    study, number = common.parse_trial(reference)
    record, console = common.open_record(study), Terminal()
    content = trial_content(record, number)
    if as_json:
        common.print_json(content)
        return
    history = content.pop("history")
    reason = f": {content['reason']}" if content.get("reason") else ""
    console.print(f"{reference} {content['state']}{reason}", soft_wrap=True)
    console.print(_key_value_table(f"{record.name}/{number}", flatten(content)))
    if history:
        console.print(_history_table(history))
    if front := front_of(record.scores(number).read_all()):
        console.print(_front_table(front))
    scored = [key.removesuffix("/top1") for key in content["benchmarks"] if key.endswith("/top1")]
    if published := published_table(scored, record.trial(number).info.train.data):
        console.print(published)


def show_log(reference: str) -> None:
    """Prints the log of ``STUDY/NUMBER``, one JSON object a line. Raises InputError."""
    study, number = common.parse_trial(reference)
    print(shown(common.open_record(study).trial(number).log), end="")


def trial_content(record: StudyRecord, number: int) -> dict[str, Any]:
    """A trial's proposal, its result so far, its history, and the scores added since."""
    trial = record.trial(number)
    content, result = trial.info.model_dump(mode="json"), trial.result
    content |= result.model_dump(mode="json") if result else {"state": "not finished"}
    content["history"] = list(result.history) if result else trial.history
    scores = trial.scores.read_all()
    content["benchmarks"] = {key: value for score in scores for key, value in score.metrics.items()}
    content["blends"] = {
        score.benchmark.name: [blend.model_dump() for blend in score.blends]
        for score in scores
        if score.blends
    }
    content["attempts"] = {
        str(attempt.number): f"{attempt.began_at:%Y-%m-%d %H:%M:%S} on {attempt.host}, "
        f"code {attempt.code.name}"
        for attempt in trial.attempts
    }
    return content


def _key_value_table(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=title)
    table.add_column("field", no_wrap=True)
    table.add_column("value", overflow="fold")
    for key, value in values.items():
        table.add_row(key, str(value))
    return table


def _history_table(history: Sequence[Mapping[str, float]]) -> FittedTable:
    names = sorted({key for metrics in history for key in metrics} - {"epoch"}, key=_importance)
    columns = [Column("epoch"), *(Column(name, importance=_importance(name)) for name in names)]
    rows = [
        [
            f"{metrics['epoch']:.0f}",
            *(f"{metrics[name]:.4g}" if name in metrics else "-" for name in names),
        ]
        for metrics in history
    ]
    return FittedTable("epochs", columns, rows)


def _front_table(front: Front) -> FittedTable:
    names = front.benchmarks
    rows = [
        [
            f"{alpha:g}{' (chosen)' if alpha == front.chosen else ''}",
            *(
                f"{point.top1:.3f} ({point.low:.3f}-{point.high:.3f})"
                for point in (points[name] for name in names)
            ),
        ]
        for alpha, points in front.points.items()
    ]
    columns = [Column("training's share"), *(Column(name) for name in names)]
    return FittedTable("blends with the frozen CLIP, top-1 (95% interval)", columns, rows)


def _importance(metric: str) -> int:
    """What trials are judged by stays longest, and what tells of the machine goes first."""
    kinds = ("val", "development", "train", "data", "time")
    kind = metric.partition("/")[0]
    return 1 + (kinds.index(kind) if kind in kinds else 2)
