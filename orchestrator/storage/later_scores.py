"""Results, with the scores that were made since their trials ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.storage.record_files import Unreadable
from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.study_record import StudyRecord


def with_later_scores(
    record: StudyRecord, results: Iterable[TrialResult], unreadable: Unreadable | None = None
) -> list[TrialResult]:
    """The results; where one lacks a benchmark that the study has now, with the scores made since
    it ended.

    A benchmark that was scored by another protocol than the study's is lacking, and left out.
    """
    wanted = {benchmark.name: benchmark for benchmark in record.info.config.benchmarks}
    return [
        result
        if not result.checkpoint or set(wanted.values()) <= set(result.protocols)
        else _with_scores(record, result, wanted, unreadable)
        for result in results
    ]


def _with_scores(
    record: StudyRecord,
    result: TrialResult,
    wanted: Mapping[str, BenchmarkConfig],
    unreadable: Unreadable | None,
) -> TrialResult:
    scores = [
        score
        for score in record.scores(result.number).read_all(unreadable)
        if wanted.get(score.benchmark.name, score.benchmark) == score.benchmark
    ]
    benchmarks = {key: value for score in scores for key, value in score.metrics.items()}
    protocols = tuple(score.benchmark for score in scores)
    return result.model_copy(update={"benchmarks": benchmarks, "protocols": protocols})
