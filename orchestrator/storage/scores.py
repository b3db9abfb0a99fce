"""The benchmarks' scores of one trial, or of the frozen CLIP."""

from __future__ import annotations

from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.storage.keys import score_key
from orchestrator.storage.record_files import RecordFiles, Unreadable
from orchestrator.storage.records.score import BenchmarkScore


class Scores:
    """A folder of scores: one file for each benchmark."""

    def __init__(self, files: RecordFiles, folder: str) -> None:
        self._files = files
        self._folder = folder

    def read(self, benchmark: BenchmarkConfig) -> BenchmarkScore | None:
        """The stored score of this benchmark, if it was computed by exactly this protocol."""
        key = score_key(self._folder, benchmark.name)
        score = self._files.read_if_there(key, BenchmarkScore)
        return score if score and score.benchmark == benchmark else None

    def read_all(self, unreadable: Unreadable | None = None) -> list[BenchmarkScore]:
        """All of them. Files that cannot be read raise StoreError, or are noted."""
        keys = self._files.store.list(self._folder)
        return list(self._files.read_each(keys, BenchmarkScore, unreadable))

    def metrics(self) -> dict[str, float]:
        """The metrics of all of them."""
        return {key: value for score in self.read_all() for key, value in score.metrics.items()}

    def write(self, score: BenchmarkScore) -> None:
        """Stores one, in place of an earlier one of this benchmark."""
        self._files.write(score_key(self._folder, score.benchmark.name), score, indent=None)
