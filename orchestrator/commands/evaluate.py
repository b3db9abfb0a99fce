"""Benchmarks for whatever has been trained: a study, one of its trials, or a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from orchestrator.commands import common
from orchestrator.config import Benchmark, ProtocolName
from orchestrator.display.published import published_table
from orchestrator.display.tables import accuracy
from orchestrator.evaluation.benchmark import (
    PUBLISHED_BENCHMARKS,
    load_checkpoint,
    score_models,
    score_trials,
)
from orchestrator.evaluation.protocols.benchmark import (
    BenchmarkConfig,
    ClipTemplates,
    checked_template,
)
from orchestrator.settings import Settings
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.service import open_service
from vitaclip.checkpoint_info import INFO_FILE, read_info
from vitaclip.config import EvalConfig
from vitaclip.errors import InputError, suggest
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

Rows = dict[str, dict[str, float]]  # model -> metrics


@dataclass(frozen=True)
class NamedBenchmarks:
    """The benchmarks that a command line names."""

    datasets: Sequence[str]
    splits: Sequence[str]  # none: the datasets' published protocols
    mode: ProtocolName  # with splits
    views: EvalConfig
    templates: Sequence[str]  # sentences, or the name of a list
    descriptions: Path | None = None  # a file of sentences for each class


def evaluate_target(target: str, named: NamedBenchmarks, *, as_json: bool) -> None:
    """Scores a target on the named benchmarks, or on its study's, and prints the scores.

    Raises:
        InputError: there is no such target or dataset, or it cannot be scored so.
    """
    if (Path(target) / INFO_FILE).is_file():
        benchmarks = _benchmarks(named)
        rows = _score_folder(Path(target), benchmarks)
        data = read_info(Path(target)).config.data
    else:
        study, numbers = _trials(target)
        benchmarks = _benchmarks(named) if named.datasets else [*study.info.config.benchmarks]
        rows = _score_study(study, numbers, benchmarks)
        data = study.info.config.train.data
        _track(study, numbers)
    if as_json:
        common.print_json(rows)
        return
    Terminal().print(_table(rows))
    if published := published_table([benchmark.name for benchmark in benchmarks], data):
        Terminal().print(published)


def _trials(target: str) -> tuple[StudyRecord, list[int]]:
    """A study and its trials that can be scored, or the one that was named."""
    if "/" in target:
        name, number = common.parse_trial(target)
        return common.open_record(name), [number]
    record = common.open_record(target)
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
    models = {0: load_checkpoint(folder)}
    metrics: dict[str, float] = {}
    for benchmark in benchmarks:
        metrics |= benchmark.summarize(score_models(models, benchmark)[0])
    return {str(folder): metrics}


def _benchmarks(named: NamedBenchmarks) -> list[BenchmarkConfig]:
    if not named.datasets:
        raise InputError(
            "--on: a checkpoint folder belongs to no study; name the datasets to score it on"
        )
    return [_benchmark(dataset, named) for dataset in named.datasets]


def _benchmark(dataset: str, named: NamedBenchmarks) -> BenchmarkConfig:
    protocol = PUBLISHED_BENCHMARKS.get(dataset)
    if protocol is None and not named.splits:
        raise InputError(
            f"--on: {dataset!r} has no published protocol{suggest(dataset, PUBLISHED_BENCHMARKS)}; "
            "name its --split"
        )
    if protocol is None or named.splits:
        split = named.splits[0] if len(named.splits) == 1 else tuple(named.splits)
        try:
            protocol = TypeAdapter(Benchmark).validate_python(
                {"dataset": dataset, "split": split, "mode": named.mode}
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"--on, --split: found {first['input']!r}, allowed: {first['msg']}"
            ) from None
    if named.descriptions is not None and named.templates:
        raise InputError("--descriptions: found --templates too, allowed is one of them")
    return protocol.model_copy(
        update={
            "views": named.views,
            "templates": _templates(named.templates),
            "descriptions": None if named.descriptions is None else str(named.descriptions),
        }
    ).pinned()


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


def _track(record: StudyRecord, numbers: Sequence[int]) -> None:
    service = open_service(Settings())
    try:
        service.check()
    except InputError as error:
        text = f"not logged to {service.name}: {error}"
        Terminal().print(text, soft_wrap=True, style="yellow")
    else:
        service.writer(record).log_scores(numbers)


def _table(rows: Mapping[str, Mapping[str, float]]) -> FittedTable:
    names = sorted(
        {key.removesuffix("/top1") for row in rows.values() for key in row if key.endswith("/top1")}
    )
    columns = [Column("model", is_text=True), *(Column(name, importance=1) for name in names)]
    cells = [[model, *(accuracy(row, name) for name in names)] for model, row in rows.items()]
    return FittedTable("top-1 [95% interval]", columns, cells)
