"""MLflow's local database, which appears under its name when it is whole.

MLflow makes its tables in some forty steps. A process that is killed between two of them leaves a
file in which every later one fails, for ever. So a new database is made beside and renamed, under a
lock, and a half-made one is made anew.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.db.utils import _get_latest_schema_revision
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from vitaclip.errors import InputError

_STILL_S = 5.0  # a file that nobody has written to for so long is not being made by another program


def ensure_database(tracking_uri: str) -> None:
    """Makes the SQLite file that ``tracking_uri`` names, if it names one and there is no whole one
    yet.

    Raises:
        InputError: the file cannot be made, or is no database.
    """
    path = _database_file(tracking_uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            if not path.exists() or path.stat().st_size == 0 or _is_half_made(path):
                _make(path)
    except (OSError, sqlite3.DatabaseError) as error:
        raise InputError(
            f"MLFLOW_TRACKING_URI: the database {path} cannot be used: {error}; name another file, "
            "or move this one"
        ) from None


def _database_file(tracking_uri: str) -> Path | None:
    """None: no file of SQLite's."""
    try:
        url = make_url(tracking_uri)
    except ArgumentError:  # a folder or a server
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)).absolute() if is_file else None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_half_made(path: Path) -> bool:
    """Whether somebody began to make MLflow's tables, and died: they are not the last version's,
    and hold nothing.
    """
    while (holds_nothing := _holds_nothing(path)) and time.time() - path.stat().st_mtime < _STILL_S:
        time.sleep(0.1)  # another program, such as `mlflow ui`, may be making it right now
    return holds_nothing


def _holds_nothing(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        tables = {
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        version = (
            database.execute("SELECT version_num FROM alembic_version")
            if "alembic_version" in tables
            else []
        )
        newest = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
        if [row[0] for row in version] == [newest]:
            return False
        ours = tables <= {"alembic_version"} or bool(tables & {"experiments", "runs"})
        held = [name for name in ("runs", "registered_models") if name in tables]
        return ours and not any(
            database.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchall() for name in held
        )


def _make(path: Path) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        # SQLite would take a dead process's for the new file's
        for suffix in (
            "-journal",
            "-wal",
            "-shm",
        ):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        partial.replace(path)
    finally:
        for left in path.parent.glob(f"{partial.name}*"):
            left.unlink()
