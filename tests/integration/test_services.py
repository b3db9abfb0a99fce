"""Services that are away, wrong or silent: one bounded attempt, and one line that says what to
do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.execution.cluster import check_answers
from orchestrator.execution.preflight import preflight
from orchestrator.settings import Settings
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.stores.s3 import S3Store
from orchestrator.tracking.mlflow.client import check_tracking
from testing.study_fixtures import study_config
from vitaclip import service
from vitaclip.errors import InputError


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.2", 0)) as listener:
        yield f"127.0.0.2:{listener.getsockname()[1]}"


@pytest.fixture
def unused() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.2", 0))
        yield f"127.0.0.2:{bound.getsockname()[1]}"


@pytest.fixture
def short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ATTEMPT_S", 0.3)


def test_a_cluster_that_is_gone_is_named(unused: str) -> None:
    for address in (unused, f"ray://{unused}", "head", "head:port", ":"):
        with pytest.raises(
            InputError, match=f"RAY_ADDRESS: no cluster answers at {address}.*unset RAY_ADDRESS"
        ):
            check_answers(address)


def test_a_cluster_that_is_silent_is_named(silent: str, short_attempts: None) -> None:
    with pytest.raises(InputError, match=f"what listens at {silent} does not answer as Ray within"):
        check_answers(silent)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_mlflow_server_that_is_silent_is_named(
    silent: str, short_attempts: None, scheme: str
) -> None:
    with pytest.raises(InputError, match=f"MLflow at {scheme}://{silent}: .*MLFLOW_TRACKING_URI"):
        check_tracking(f"{scheme}://{silent}")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://user:hunter2@127.0.0.2:9/mlflow", "MLflow at postgresql://"),
        ("mysql+pymysql://user:hunter2@127.0.0.2:9/mlflow", r"MLflow at mysql\+pymysql://"),
        ("postgres://127.0.0.2:9/mlflow", "MLflow at postgres://"),
        ("nonsense://somewhere", "MLflow at nonsense://"),
    ],
)
def test_a_database_that_is_away_is_named_after_one_attempt(uri: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        check_tracking(uri)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["minio:9000", "minio", "ftp://minio", "http://", "http://host:port", "http://a:b@c"],
)
def test_an_s3_address_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
    with pytest.raises(
        InputError, match="S3_ENDPOINT_URL: found .*allowed is an address such as https://"
    ):
        open_store("s3://bucket").check()


def test_an_addressing_style_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, unused: str
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://{unused}")
    monkeypatch.setenv("S3_ADDRESSING_STYLE", "Paths")
    with pytest.raises(
        InputError, match="S3_ADDRESSING_STYLE: found 'Paths', allowed: auto, virtual, path"
    ):
        open_store("s3://bucket").check()


def test_an_s3_server_that_is_silent_is_named(
    silent: str, short_attempts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://{silent}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("VITACLIP_STORE", "s3://bucket/prefix")
    with pytest.raises(
        InputError, match="store s3://bucket/prefix: no answer within .*S3_ENDPOINT_URL"
    ):
        preflight(study_config(), Settings())


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in (
        "VITACLIP_STORE",
        "MLFLOW_TRACKING_URI",
        "RAY_ADDRESS",
        "S3_ENDPOINT_URL",
        "S3_ADDRESSING_STYLE",
    ):
        monkeypatch.setenv(variable, "")
    settings = Settings()
    assert settings.store_uri == str(tmp_path / "store")
    assert (settings.tracking_uri, settings.ray_address) == ("sqlite:///mlflow.db", None)
    store = open_store("s3://bucket")
    assert isinstance(store, S3Store)
    assert store._bucket.client.meta.endpoint_url.endswith("amazonaws.com")
