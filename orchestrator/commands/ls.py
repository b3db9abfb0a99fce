"""The studies of the store, or the trials of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.commands import common
from orchestrator.display.tables import code_lines, trials_table
from orchestrator.evaluation.ranking import best_first
from orchestrator.settings import Settings
from orchestrator.storage.later_scores import with_later_scores
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord, study_names
from vitaclip.errors import VitaClipError
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

_STUDY_COLUMNS = (
    Column("study"),
    Column("started", importance=2),
    Column("finished"),
    Column("best", importance=1),
    Column("trial", importance=3),
    Column("question", importance=1, is_text=True),
)


def list_trials(study: str, *, as_json: bool) -> None:
    """Prints a study's trials, best first. Raises InputError if there is no such study."""
    record, console = common.open_record(study), Terminal()
    config, unreadable = record.info.config, list[str]()
    found = record.results(unreadable)
    results = best_first(config, with_later_scores(record, found, unreadable))
    trials = record.trials(unreadable)
    for problem in unreadable:
        common.warn(f"left out: {problem}")
    if as_json:
        common.print_json(
            [result.model_dump(mode="json", exclude={"history"}) for result in results]
        )
        return
    console.print(trials_table(config, results))
    for line in code_lines(results):
        console.print(line, soft_wrap=True)
    finished = {result.number for result in results}
    open_trials = [str(trial.number) for trial in trials if trial.number not in finished]
    if open_trials:
        console.print(f"not finished: {', '.join(open_trials)}")


def list_studies(*, as_json: bool) -> None:
    """Prints the studies of the store."""
    store = open_store(Settings().store_uri)
    rows = []
    for name in study_names(store):
        try:
            rows.append(_study_row(StudyRecord(store, name)))
        except VitaClipError as error:  # the others are shown
            common.warn(f"left out: {error}")
    if as_json:
        common.print_json(rows)
        return
    Terminal().print(FittedTable(store.uri, _STUDY_COLUMNS, list(map(_study_cells, rows))))


def _study_cells(row: Mapping[str, Any]) -> list[str]:
    best = "-" if row["best"] is None else f"{row['metric']} {row['best']:.3f}"
    done = f"{row['num_finished']}/{row['num_trials']}"
    number = "-" if row["best_trial"] is None else str(row["best_trial"])
    return [row["name"], row["created_at"][:16], done, best, number, row["question"]]


def _study_row(record: StudyRecord) -> dict[str, Any]:
    config = record.info.config
    results = best_first(config, record.results(unreadable=[]))
    best = results[0] if results and results[0].values else None
    return {
        "name": record.name,
        "created_at": record.info.created_at.isoformat(),
        "num_finished": len(results),
        "num_trials": record.control().num_trials,
        "metric": record.objective.metric,
        "best": best.values[0] if best and best.values else None,
        "best_trial": best.number if best else None,
        "question": " ".join(config.question.split()),
    }
