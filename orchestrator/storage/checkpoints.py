"""Publishing a trial's checkpoints, and deleting those that nobody needs any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.storage.attempts import check_current
from orchestrator.storage.best_epochs import best_epochs
from orchestrator.storage.keys import Checkpoint
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_record import TrialRecord

_History = Sequence[Mapping[str, float]]


def publish_checkpoint(
    record: StudyRecord,
    number: int,
    attempt: int,
    folder: Path,
    history: _History,
    step: int = 0,
) -> str:
    """Uploads a checkpoint, deletes all but it and the best ones, and returns its key.

    Args:
        record: the study's.
        number: the trial's.
        attempt: the number of the attempt that made the checkpoint.
        folder: where its files lie.
        history: metrics of the epochs done.
        step: optimizer steps done in the epoch under way; 0: the checkpoint is of an epoch's end.

    Raises:
        SupersededError: a newer attempt has begun, or the trial has finished; no checkpoint of
            theirs is touched.
    """
    keys = record.keys.trial(number)
    check_current(keys, attempt, record.store.exists)
    epoch = int(history[-1]["epoch"]) if history else 0
    checkpoint = keys.checkpoint(attempt, epoch, step)
    record.store.upload_folder(folder, checkpoint.key)
    trial = record.trial(number)
    check_current(keys, attempt, trial.files.__contains__)
    unneeded = _unneeded(record, trial, checkpoint, history)
    record.store.delete_all([key for other in unneeded for key in trial.files_of(other)])
    return checkpoint.key


def _unneeded(
    record: StudyRecord, trial: TrialRecord, newest: Checkpoint, history: _History
) -> list[Checkpoint]:
    """What no reader needs of this attempt and of those before it."""
    num_best = record.info.config.resources.num_best_checkpoints
    best = best_epochs(history, record.objective)[:num_best] if history else []
    keep = {newest, *(c for c in trial.checkpoints if c.step == 0 and c.epoch in best)}
    others = sorted(trial.all_checkpoints - keep)
    return [other for other in others if other.attempt <= newest.attempt]
