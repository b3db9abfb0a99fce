"""MLflow's local database is there whole or not at all, whoever is killed and however many start at
once.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.tracking.mlflow import database
from orchestrator.tracking.mlflow.client import check_tracking
from vitaclip.errors import InputError

# Dies at the n-th statement that makes or changes a table.
MAKE_AND_DIE = """
import os, signal, sqlite3, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
left = int(sys.argv[2])
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *_):
    global left
    if statement.lstrip().upper().startswith(("CREATE", "ALTER", "DROP")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
from mlflow import MlflowClient
MlflowClient(sys.argv[1]).search_experiments()
"""
CHECK = (
    "import sys; from orchestrator.tracking.mlflow.client import check_tracking; "
    "check_tracking(sys.argv[1])"
)


@pytest.mark.parametrize("statement", [1, 20])
def test_a_half_made_database_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", MAKE_AND_DIE, uri, str(statement)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "mlflow.db").exists()
    monkeypatch.setattr(database, "_STILL_S", 0.0)
    check_tracking(uri)
    assert MlflowClient(uri).create_experiment("works") == "1"


def test_a_killed_creation_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    uri, path = f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "mlflow.db"
    maker = subprocess.Popen([sys.executable, "-c", CHECK, uri])
    while not list(tmp_path.glob(".mlflow.db.*-journal")):
        assert maker.poll() is None
        time.sleep(0.001)
    maker.kill()
    maker.wait()
    assert not path.exists()
    check_tracking(uri)
    assert MlflowClient(uri).create_experiment("works") == "1"


def test_several_may_start_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHECK, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    makers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for maker in makers:
        _, errors = maker.communicate()
        assert maker.returncode == 0, errors
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_a_database_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path, uri = tmp_path / "mlflow.db", f"sqlite:///{tmp_path / 'mlflow.db'}"
    check_tracking(uri)
    MlflowClient(uri).create_run("0")
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        opened.execute("UPDATE alembic_version SET version_num = 'of another MLflow'")
        opened.commit()
    before = path.read_bytes()
    database.ensure_database(uri)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database, and longer than a header of one" * 99])
def test_what_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(
        InputError,
        match=r"MLFLOW_TRACKING_URI: .*mlflow\.db cannot be used: file is not a database",
    ):
        check_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("CREATE TABLE mine (x)")
        opened.commit()
    os.utime(path, (0, 0))
    assert not database._is_half_made(path)
