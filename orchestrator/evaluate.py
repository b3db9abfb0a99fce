"""``python -m orchestrator.evaluate TARGET --on DATASET...``: benchmarks for whatever has been
trained.

TARGET is a study, one of its trials (STUDY/NUMBER) or a checkpoint folder. Scores of trials are
kept in the study's record: those that are there already are shown, not computed again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from orchestrator import command
from orchestrator.config import BenchmarkConfig, ClipTemplates, checked_template
from orchestrator.evaluation.benchmark import (
    PROTOCOLS,
    load_contestant,
    score_contestants,
    score_trials,
    summarise,
)
from orchestrator.settings import Settings
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.service import open_service
from vitaclip.config import EvalConfig
from vitaclip.errors import InputError, suggest

Rows = dict[str, dict[str, float]]  # model -> metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.evaluate", description=__doc__)
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument(
        "--on", nargs="+", metavar="DATASET", help="default: the study's benchmarks"
    )
    parser.add_argument("--split", nargs="+", help="instead of the dataset's published protocol")
    parser.add_argument(
        "--mode", choices=["zero_shot", "supervised"], help="with --split; default: zero_shot"
    )
    parser.add_argument(
        "--views",
        type=EvalConfig.parse,
        default="1x1",
        help="temporal x spatial, such as 4x3 (default: 1x1)",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        default=[],
        metavar="NAME|SENTENCE",
        help="CLIP's own list for kinetics700 or ucf101, or sentences in which {} is the class "
        "name",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return command.run(parser, _evaluate, arguments)


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    if (Path(options.target) / "checkpoint.json").is_file():
        rows = _score_folder(Path(options.target), _named_benchmarks(options))
    else:
        study, numbers = _trials(options.target)
        benchmarks = (
            _named_benchmarks(options) if options.on else list(study.info.config.benchmarks)
        )
        rows = _score_study(study, numbers, benchmarks)
        _track(study, numbers, console)
    if options.json:
        command.print_json(console, rows)
    else:
        console.print(_table(rows))


def _trials(target: str) -> tuple[StudyRecord, list[int]]:
    """A study and its trials that can be scored, or the one that was named."""
    if "/" in target:
        name, number = command.parse_trial(target)
        return command.open_study(name), [number]
    record = command.open_study(target)
    return record, [result.number for result in record.results() if result.checkpoint]


def _score_study(
    record: StudyRecord, numbers: Sequence[int], benchmarks: Sequence[BenchmarkConfig]
) -> Rows:
    if not benchmarks:
        raise InputError(f"study {record.name!r} has no benchmarks; name datasets with --on")
    rows: Rows = {f"{record.name}/{number}": {} for number in numbers}
    for benchmark in benchmarks:
        for number, score in score_trials(record, numbers, benchmark).items():
            rows[f"{record.name}/{number}"] |= score.metrics
        for baseline in {Baseline.of(record.trial(number).info.train): None for number in numbers}:
            if clip := record.scores(baseline).read(benchmark):
                rows.setdefault(baseline.name, {}).update(clip.metrics)
    return rows


def _score_folder(folder: Path, benchmarks: Sequence[BenchmarkConfig]) -> Rows:
    contestants = {0: load_contestant(folder)}
    metrics: dict[str, float] = {}
    for benchmark in benchmarks:
        metrics |= summarise(benchmark, score_contestants(contestants, benchmark)[0])
    return {str(folder): metrics}


def _named_benchmarks(options: argparse.Namespace) -> list[BenchmarkConfig]:
    if not options.on:
        raise InputError(
            "--on: a checkpoint folder belongs to no study; name the datasets to score it on"
        )
    return [_benchmark(dataset, options) for dataset in options.on]


def _benchmark(dataset: str, options: argparse.Namespace) -> BenchmarkConfig:
    protocol = PROTOCOLS.get(dataset)
    if protocol is None and not options.split:
        raise InputError(
            f"--on: {dataset!r} has no published protocol{suggest(dataset, PROTOCOLS)}; name its "
            "--split"
        )
    if protocol is None or options.split:
        split = options.split[0] if len(options.split) == 1 else tuple(options.split)
        try:
            protocol = BenchmarkConfig(
                dataset=dataset, split=split, mode=options.mode or "zero_shot"
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"--on, --split: found {first['input']!r}, allowed: {first['msg']}"
            ) from None
    return protocol.model_copy(
        update={"views": options.views, "templates": _templates(options.templates)}
    )


def _templates(words: Sequence[str]) -> ClipTemplates | tuple[str, ...]:
    for name in get_args(ClipTemplates):
        if list(words) == [name]:
            return name  # type: ignore[no-any-return]
    try:
        return tuple(map(checked_template, words))
    except ValueError as error:
        raise InputError(
            f"--templates: {error}; or the name of a list: {' or '.join(get_args(ClipTemplates))}"
        ) from error


def _track(record: StudyRecord, numbers: Sequence[int], console: Console) -> None:
    service = open_service(Settings())
    try:
        service.check()
    except InputError as error:
        console.print(f"not logged to {service.name}: {error}", soft_wrap=True, style="yellow")
    else:
        service.writer(record).log_scores(numbers)


def _table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    names = sorted(
        {key.removesuffix("/top1") for row in rows.values() for key in row if key.endswith("/top1")}
    )
    table = Table("model", *names, title="top-1 [95% interval]")
    for model, row in rows.items():
        table.add_row(model, *(command.accuracy(row, name) for name in names))
    return table


if __name__ == "__main__":
    sys.exit(main())
