"""A study as a notebook reads it: trials, tables, curves and checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config import StudyConfig
from orchestrator.evaluation.ranking import best_first
from orchestrator.settings import Settings
from orchestrator.storage.later_scores import with_later_scores
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from vitaclip.errors import InputError
from vitaclip.extras import missing_package

if TYPE_CHECKING:
    import pandas as pd

_logger = logging.getLogger(__name__)


def open_study(name: str, store: str | None = None) -> StudyView:
    """A study that a sweep has written, or is writing.

    Args:
        name: the study's name; ``vitaclip ls`` lists them.
        store: a folder or ``s3://bucket/prefix``; None for ``VITACLIP_STORE``.

    Raises:
        InputError: the store holds no such study.
    """
    record = StudyRecord(open_store(store or Settings().store_uri), name)
    return StudyView(record)


class StudyView:
    """What is on record of a study. Every call reads it again, so a running study moves on.

    Accuracies are fractions. Files that cannot be read are left out, with a warning in the log.
    """

    def __init__(self, record: StudyRecord) -> None:
        self._record = record
        self.name = record.name
        self.config: StudyConfig = record.info.config

    def __repr__(self) -> str:
        return f"<study {self.name!r} in {self._record.store.uri}>"

    @property
    def trials(self) -> list[TrialResult]:
        """The finished trials, best first, each with all scores that it has now."""
        unreadable: list[str] = []
        found = self._record.results(unreadable)
        results = with_later_scores(self._record, found, unreadable)
        _warn(unreadable)
        return best_first(self.config, results)

    def dataframe(self) -> pd.DataFrame:
        """A row per trial, best first, then those that have not finished.

        The columns are the parameters that vary (``prompts.depth``), the metrics of the best epoch
        (``val/top1``), the benchmarks' scores (``zero_shot/quickstart/top1``), ``state``, the best
        epoch and the minutes that training and scoring took.
        """
        pandas = _import_pandas()
        results = self.trials
        finished = {result.number for result in results}
        rows = [_row(result) for result in results]
        rows += [_unfinished_row(info) for info in self._infos() if info.number not in finished]
        return pandas.DataFrame(rows).set_index("trial") if rows else pandas.DataFrame()

    def curves(self, trial: int) -> pd.DataFrame:
        """A row per epoch of a trial, finished or not: every metric that training reports.

        Raises:
            InputError: the study has no such trial.
        """
        found = self._record.trial(trial)
        _ = found.info  # raises where there is no such trial
        history = found.result.history if found.result else found.history
        table = _import_pandas().DataFrame(list(history))
        return table.astype({"epoch": int}).set_index("epoch") if len(table) else table

    def checkpoint(self, trial: int, folder: Path | None = None) -> Path:
        """Downloads the checkpoint of a trial's best epoch, and returns its folder.

        Args:
            trial: the trial's number.
            folder: where to; None for ``checkpoints/STUDY/TRIAL`` in the current folder.

        Raises:
            InputError: the study has no such trial, or the trial has no checkpoint.
        """
        found = self._record.trial(trial)
        _ = found.info  # raises where there is no such trial
        key = found.best_checkpoint(self._record.objective)
        if key is None:
            raise InputError(f"trial {trial} of study {self.name!r} has no checkpoint yet")
        target = folder or Path("checkpoints") / self.name / str(trial)
        self._record.store.download_folder(key, target)
        return target

    def _infos(self) -> list[TrialInfo]:
        unreadable: list[str] = []
        infos = self._record.trials(unreadable)
        _warn(unreadable)
        return infos


def _row(result: TrialResult) -> dict[str, Any]:
    return {
        "trial": result.number,
        **result.params,
        **{name: value for name, value in result.metrics.items() if name != "epoch"},
        **result.benchmarks,
        "state": result.state,
        "best_epoch": result.best_epoch,
        "minutes": sum(result.durations.values()) / 60,
    }


def _unfinished_row(info: TrialInfo) -> dict[str, Any]:
    return {"trial": info.number, **info.params, "state": "not finished"}


def _warn(unreadable: list[str]) -> None:
    for problem in unreadable:
        _logger.warning("left out: %s", problem)


def _import_pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise missing_package("a study as a table", error) or error from None
    return pandas
