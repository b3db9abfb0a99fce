"""S3 servers, each started once for all tests that use it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from testing.servers.real_s3 import CEPH, RCLONE, SEAWEEDFS, RealServer
from testing.servers.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """The server of all tests that one server is enough for."""
    with s3_server() as running:
        yield running


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    yield from _started(SEAWEEDFS)


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    yield from _started(CEPH)


@pytest.fixture(scope="session")
def rclone() -> Iterator[S3Server]:
    yield from _started(RCLONE)


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket of ``server``, which the environment names."""
    return new_bucket(server, monkeypatch)


@pytest.fixture(params=["server", "seaweedfs", pytest.param("ceph", marks=pytest.mark.slow)])
def any_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket of each server in turn."""
    return new_bucket(request.getfixturevalue(request.param), monkeypatch)


def new_bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own, on a server that the environment names from now on."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"vitaclip-test-{uuid.uuid4().hex[:12]}"
    server.create_bucket(bucket)
    return bucket


def _started(program: RealServer) -> Iterator[S3Server]:
    if reason := program.obstacle():
        pytest.skip(reason)
    with program.start() as running:
        yield running
