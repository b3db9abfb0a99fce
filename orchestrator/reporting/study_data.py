"""What a report is made of, read once from the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.config import Scalar, StudyConfig
from orchestrator.evaluation.ranking import best_first
from orchestrator.search.search_space import check_values
from orchestrator.storage.keys import TrialKeys
from orchestrator.storage.records.score import Baseline, BenchmarkScore, ScoredModel
from orchestrator.storage.records.study import StudyInfo
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError, VitaClipError


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial that has no result yet, as far as it has come."""

    number: int
    params: Mapping[str, Scalar]
    proposed_at: datetime
    history: Sequence[Mapping[str, float]]
    state: str = "not finished"


@dataclass(frozen=True)
class StudyData:
    """What a report is made of, read once from the record."""

    name: str
    info: StudyInfo
    results: tuple[TrialResult, ...]  # best first
    baseline_of: Mapping[int, Baseline]  # by trial number
    scores: Mapping[ScoredModel, Sequence[BenchmarkScore]]
    unfinished: tuple[UnfinishedTrial, ...] = ()
    unreadable: tuple[str, ...] = ()  # files that were left out, and why

    @property
    def metric(self) -> str:
        """The first objective's metric."""
        return self.info.config.search.objectives[0].metric

    @property
    def best(self) -> TrialResult | None:
        """The best trial that finished an epoch."""
        return next((result for result in self.results if result.values), None)

    @property
    def baselines(self) -> list[Baseline]:
        """The frozen CLIP for each way of drawing clips, by number of frames."""
        return sorted(set(self.baseline_of.values()), key=lambda clip: (clip.num_frames, clip.key))

    def metrics(self, model: ScoredModel) -> dict[str, float]:
        """All benchmark metrics of one trial or baseline."""
        return {key: value for score in self.scores[model] for key, value in score.metrics.items()}

    def gpu_hours(self, result: TrialResult) -> float:
        """Training time times the GPUs that it held."""
        resources = self.info.config.resources
        return (
            resources.max_workers
            * resources.gpus_per_worker
            * result.durations.get("train_s", 0.0)
            / 3600
        )


def read_study(record: StudyRecord) -> StudyData:
    """Everything on record of a study's trials."""
    unreadable: list[str] = []
    config = record.info.config
    results = best_first(config, _with_whole_points(config, record.results(unreadable), unreadable))
    finished = {result.number for result in results}
    trials = record.trials(unreadable)
    baseline_of = {
        trial.number: Baseline.of(trial.train) for trial in trials if trial.number in finished
    }
    models: list[ScoredModel] = [*finished, *set(baseline_of.values())]
    scores = {model: record.scores(model).read_all(unreadable) for model in models}
    results = [result for result in results if result.number in baseline_of]
    unfinished = tuple(_unfinished(record, trials, unreadable))
    return StudyData(
        record.name,
        record.info,
        tuple(results),
        baseline_of,
        scores,
        unfinished,
        tuple(unreadable),
    )


def _unfinished(
    record: StudyRecord, trials: Sequence[TrialInfo], unreadable: list[str]
) -> Iterator[UnfinishedTrial]:
    """The trials without a result, each with the epochs up to its newest checkpoint."""
    for trial in trials:
        recorded = record.trial(trial.number)
        try:
            if not recorded.is_finished:
                yield UnfinishedTrial(
                    trial.number, trial.params, trial.proposed_at, recorded.history
                )
        except VitaClipError as error:
            unreadable.append(str(error))


def _with_whole_points(
    config: StudyConfig, results: Sequence[TrialResult], unreadable: list[str]
) -> list[TrialResult]:
    """The results whose parameters are a point of the search space; the others are noted."""
    kept = []
    for result in results:
        place = f"{TrialKeys(config.name, result.number).result}: params"
        always = [key for key, distribution in config.search_space.items() if not distribution.when]
        lacking = [key for key in always if key not in result.params]
        try:
            check_values(place, result.params, config)
        except InputError as error:
            unreadable.append(str(error))
        else:
            if lacking:
                unreadable.append(f"{place}: lacks {', '.join(lacking)}")
            else:
                kept.append(result)
    return kept
