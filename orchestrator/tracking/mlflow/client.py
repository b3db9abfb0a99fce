"""Whether MLflow can be used, why not, and how it takes values."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import posixpath
import re
import socket
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.config import Scalar
from orchestrator.settings import without_password
from orchestrator.tracking.mlflow.database import ensure_database
from vitaclip.errors import InputError
from vitaclip.service import attempt

_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
_LONGEST_NAME = 250
_ADVICE = (
    "start the server, correct MLFLOW_TRACKING_URI (MLFLOW_TRACKING_USERNAME and ..._PASSWORD, "
    "..._TOKEN, ..._SERVER_CERT_PATH), or unset it to use the local mlflow.db"
)


def check_tracking(tracking_uri: str) -> None:
    """Makes the local database, if MLflow is one and it is not there; asks MLflow one question
    otherwise.

    Raises:
        InputError: MLflow cannot be reached, refuses the credentials, or has not answered within
            seconds.
    """
    service = f"MLflow at {without_password(tracking_uri)}"
    ensure_database(tracking_uri)
    try:
        attempt(service, lambda: _ask(tracking_uri), _ADVICE)
    except (OSError, ValueError, ImportError, MlflowException, SQLAlchemyError) as error:
        raise InputError(f"{service}: {reason(error, tracking_uri)}; {_ADVICE}") from None


def _ask(tracking_uri: str) -> None:
    """MLflow itself tries again and again, for minutes: what a single attempt can find out is found
    out before.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=3).close()
    elif parts.scheme.partition("+")[0] in DATABASE_ENGINES:
        create_engine(tracking_uri).connect().close()
    MlflowClient(tracking_uri).search_experiments(max_results=1)


def reason(error: Exception, uri: str) -> str:
    """What lies at the bottom of an error, in one line, without the password that the address in it
    may hold.
    """
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    # "Connection refused", not urllib3's account of it
    cause = root if isinstance(root, OSError) else error
    text = without_password(str(cause), uri) or type(cause).__name__
    return textwrap.shorten(text, 200)


def metric_rows(metrics: Mapping[str, float], step: int, timestamp_ms: int) -> list[Metric]:
    """For ``log_batch``."""
    return [Metric(key, value, timestamp_ms, step) for key, value in metrics.items()]


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """MLflow keeps text: strings as they are, all else as JSON spells it; under names that it
    takes.
    """
    return {
        allowed_name(key): value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }


def allowed_name(name: str) -> str:
    """The name, with ``_`` for what MLflow takes in no name; different names stay different."""
    kept = _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]
    # MLflow takes them for paths, and unique ones
    if posixpath.normpath(kept) != kept or kept.startswith((".", "/")):
        kept = kept.replace("/", "_").strip(".") or "_"
    return kept if kept == name else f"{kept[:200]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def present(values: Mapping[str, Scalar]) -> dict[str, str]:
    """The same for tags, without those that are None."""
    return texts({key: value for key, value in values.items() if value is not None})


def user_name() -> str:
    """Who MLflow shows as a run's user: the one its server knows, else this machine's."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def milliseconds(moment: datetime) -> int:
    """MLflow's time stamps."""
    return round(1000 * moment.timestamp())
