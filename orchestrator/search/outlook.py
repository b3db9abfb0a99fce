"""What a study's next decisions wait for, in words: for those who watch it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo


def outlook(study: Study) -> list[str]:
    """One sentence for each decision that is ahead."""
    return [_next_proposal(study), *_promotions(study), *_scores(study)]


def next_judgment(study: Study, trial: TrialInfo, epoch: int) -> str:
    """After which epoch a trial that has come to ``epoch`` is judged next, and by what."""
    metric = study.config.search.objectives[0].metric
    if ahead := [judged for judged in sorted(trial.thresholds) if judged > epoch]:
        return f"after epoch {ahead[0]}: {metric} {trial.thresholds[ahead[0]]:.4g}"
    if later := [judged for judged in trial.judged_epochs if judged > epoch]:
        return f"after epoch {later[0]}: its rank there"
    return f"trains to epoch {trial.last_epoch}"


def _next_proposal(study: Study) -> str:
    number, slots = study.num_proposed, study.config.resources.max_concurrent_trials
    if study.has_ended:
        return "Nothing: every trial has its result, and no further one is wanted."
    if number >= study.num_trials:
        return f"No further trial is proposed: all {study.num_trials} are."
    if reason := study.stop_reason:
        return f"No further trial is proposed: {reason}."
    if study.is_paused:
        return f"The study is paused: `vitaclip control {study.config.name} --resume` ends that."
    if awaited := study.awaited:
        return f"Trial {number} is proposed after the end of {_trials(awaited)}."
    if len(study.training) >= slots:
        return f"Trial {number} is proposed when one of the {slots} slots is free."
    return f"Trial {number} is proposed next: a slot is free."


def _promotions(study: Study) -> Iterator[str]:
    if study.paused:
        factor = study.config.search.scheduler.reduction_factor
        yield (
            f"Paused: {_trials(study.paused)}. One goes on when it is among the best 1/{factor} "
            "of those that came as far."
        )


def _scores(study: Study) -> Iterator[str]:
    if study.unscored:
        yield f"Trained: {_trials(study.unscored)}. Benchmarks are next, then the result."


def _trials(numbers: Sequence[int]) -> str:
    """``trial 3``, ``trials 3, 5``."""
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
