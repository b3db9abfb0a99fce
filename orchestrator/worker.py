"""Training one trial, as each of its workers does it: in the trial's actor or in a Ray Train worker group.

A worker needs nothing but the store's address: it reads its trial from the record, goes on from the newest
whole checkpoint there, and publishes one after every epoch *before* that epoch is reported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.records import StudyRecord, TrialRecord
from orchestrator.schedulers import falls_short
from orchestrator.storage import open_store
from vitaclip.distributed import rank_and_world_size
from vitaclip.train import EpochEnd, fit

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Job:
    """Which trial to train, and with what."""

    store_uri: str
    study: str
    number: int
    num_workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    max_failures: int


class _FellShortError(Exception):
    """The trial missed its bar (:mod:`orchestrator.schedulers`) and ends here."""


def train_worker(job: Job, report: Report) -> None:
    """Trains to the last epoch or to the first one after which the trial falls short of its bar.

    Args:
        report: called on every worker after every epoch, once its checkpoint is in the store.

    Raises:
        VitaClipError: see :func:`vitaclip.train.fit`; StoreError if the store stays away.
    """
    record = StudyRecord(open_store(job.store_uri), job.study)
    trial = record.trial(job.number)
    torch.set_num_threads(job.cpus_per_worker)

    def end_epoch(end: EpochEnd) -> None:
        if rank_and_world_size()[0] == 0:
            _publish(record, trial.number, end)
        report(end.metrics)
        if falls_short(end.history, trial.bar, record.objective):
            raise _FellShortError

    with tempfile.TemporaryDirectory() as folder:
        resume_from = _fetch_newest(record, trial, Path(folder))
        try:
            fit(trial.train, resume_from=resume_from, on_epoch_end=end_epoch)
        except _FellShortError:
            return


def _publish(record: StudyRecord, number: int, end: EpochEnd) -> None:
    with tempfile.TemporaryDirectory() as folder:
        end.save(Path(folder))
        record.publish_checkpoint(number, Path(folder), end.history)


def _fetch_newest(record: StudyRecord, trial: TrialRecord, folder: Path) -> Path | None:
    key = record.newest_checkpoint(trial.number)
    if key is None:
        return None
    record.store.download_folder(key, folder)
    return folder
