"""Training one trial, as each of its workers does it: in the trial's actor or in a Ray Train worker
group.

A worker needs nothing but the store's address: it reads its trial from the record, goes on from the
newest whole checkpoint there, and publishes one after every epoch *before* that epoch is reported.
"""

from __future__ import annotations

import faulthandler
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.search.stopping.rule import misses_threshold
from orchestrator.storage.attempts import begin_attempt
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.attempt import Attempt
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_log import TrialLog
from orchestrator.storage.verdicts import goes_on
from vitaclip.checkpoint import adopt_checkpoint
from vitaclip.checkpoint_info import EpochMetrics, read_history
from vitaclip.distributed import gather_from_workers, rank_and_world_size
from vitaclip.errors import VitaClipError
from vitaclip.train import EpochEnd, TrainingInterruptedError, fit

Report = Callable[[dict[str, float]], None]
MIN_FREE_BYTES = 100 * 2**20
_VERDICT_INTERVAL_S = 0.05
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Which trial to train. All else is in the study's record."""

    store_uri: str
    study: str
    number: int

    def open_record(self) -> StudyRecord:
        """The study's record, from wherever this process runs."""
        return StudyRecord(open_store(self.store_uri), self.study)


class PreemptedError(VitaClipError):
    """This process, or another worker's, is about to be taken away; a checkpoint of its last step
    is in the store.
    """


class _EnoughError(Exception):
    """The trial ends here: it missed its threshold (:mod:`orchestrator.search.stopping`), or its
    generation is over.
    """


def train_worker(job: Job, report: Report, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Trains to the trial's last epoch or to the first one after which it misses its
    threshold.

    Args:
        report: called on every worker after every epoch, once its checkpoint is in the store.
        should_stop: asked after every optimizer step.

    Raises:
        PreemptedError: ``should_stop`` said yes on one of the workers; all have stopped.
        SupersededError: another worker was given this trial meanwhile; nothing of its was touched.
        VitaClipError: see :func:`vitaclip.train.fit`; StoreError if the store stays away.
    """
    record = job.open_record()
    trial, resources = record.trial(job.number).info, record.info.config.resources
    torch.set_num_threads(resources.cpus_per_worker)
    attempt = _begin_attempt(record, trial.number)
    if attempt is None:
        return

    def end_epoch(end: EpochEnd) -> None:
        _publish(record, trial.number, attempt, end.history, end.save)
        log.add("epoch", **end.metrics)
        log.save()
        report(end.metrics)
        _arm(resources.epoch_timeout_s)
        _check_not_enough(record, trial, end.history)

    with (
        _log_of(record, attempt, trial.number) as log,
        tempfile.TemporaryDirectory() as folder,
        _time_limit(resources.epoch_timeout_s),
    ):
        resume_from = _fetch_start(record, trial, attempt, Path(folder))
        history = read_history(resume_from) if resume_from else []
        if history and history[-1]["epoch"] in trial.judged_epochs:
            # A worker may have died between its checkpoint and its report.
            report(history[-1])
        try:
            # A worker may have died when its last checkpoint was in the store.
            _check_not_enough(record, trial, history)
            fit(
                trial.train,
                resume_from=resume_from,
                on_epoch_end=end_epoch,
                should_stop=should_stop,
            )
        except _EnoughError as enough:
            log.add("stop", reason=str(enough))
        except TrainingInterruptedError as stop:
            _publish(
                record, trial.number, attempt, stop.progress.history, stop.save, stop.progress.step
            )
            gather_from_workers([None])  # the first worker to fail would end the one that publishes
            raise PreemptedError(str(stop)) from None


def _check_not_enough(
    record: StudyRecord, trial: TrialInfo, history: Sequence[EpochMetrics]
) -> None:
    """Raises _EnoughError if the trial ends, or pauses, after the last of these epochs, before its
    schedule does.
    """
    if not history:
        return
    if misses_threshold(history, trial.thresholds, record.objective):
        raise _EnoughError("misses its threshold")
    if trial.last_epoch <= history[-1]["epoch"] < trial.train.epochs:
        raise _EnoughError("its generation is over")
    epoch = int(history[-1]["epoch"])
    if epoch in trial.judged_epochs and not _verdict(record, trial.number, epoch):
        raise _EnoughError(f"the driver's verdict after epoch {epoch}")


def _verdict(record: StudyRecord, number: int, epoch: int) -> bool:
    """Whether the trial goes on, which the driver decides and the first worker waits for."""
    found: list[bool] = []
    while rank_and_world_size()[0] == 0 and not found:
        verdict = goes_on(record, number, epoch)
        if verdict is None:
            time.sleep(_VERDICT_INTERVAL_S)
        else:
            found.append(verdict)
    return gather_from_workers(found)[0]


def _begin_attempt(record: StudyRecord, number: int) -> Attempt | None:
    """The attempt that all workers of this training belong to; None: the trial has finished
    meanwhile.
    """
    rank, _ = rank_and_world_size()
    return gather_from_workers([begin_attempt(record, number)] if rank == 0 else [])[0]


def _log_of(record: StudyRecord, attempt: Attempt, number: int) -> TrialLog:
    rank, num_workers = rank_and_world_size()
    return TrialLog(record, number, attempt.number, num_workers=num_workers, is_first=rank == 0)


def _publish(
    record: StudyRecord,
    number: int,
    attempt: Attempt,
    history: Sequence[EpochMetrics],
    save: Callable[[Path], None],
    step: int = 0,
) -> None:
    """Puts a checkpoint into the store: the trial's first worker does."""
    if rank_and_world_size()[0] == 0:
        _wait_for_space()
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder))
            publish_checkpoint(record, number, attempt.number, Path(folder), history, step)


def _wait_for_space() -> None:
    """A full disk ends no trial: it goes on when there is room for its checkpoint, or at the time
    limit.
    """
    folder = tempfile.gettempdir()
    while (free := shutil.disk_usage(folder).free) < MIN_FREE_BYTES:
        _logger.warning("%s: %d bytes free, waiting for %d", folder, free, MIN_FREE_BYTES)
        time.sleep(1)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Ends this process, with its stacks in the log, if nothing is heard of it for so long.

    Only the process's end helps against a decoder or a collective that hangs in native code.
    """
    _arm(seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _arm(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


def _fetch_start(
    record: StudyRecord, trial: TrialInfo, attempt: Attempt, folder: Path
) -> Path | None:
    """Downloads what the attempt goes on from: the trial's newest checkpoint, else its parent's;
    None: nothing.
    """
    key = attempt.goes_on_from
    inherited = key is None and trial.parent is not None
    if trial.parent is not None and inherited:
        key = record.trial(trial.parent).newest_checkpoint
    if key is None:
        return None
    record.store.download_folder(key, folder)
    if inherited:
        adopt_checkpoint(folder, trial.train)
    return folder
