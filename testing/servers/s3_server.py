"""A real S3-protocol server that checks signatures, and a proxy before it that fails on purpose.

The server is moto's, in a process of its own, unless ``S3_ENDPOINT_URL`` names another (MinIO,
Ceph, ...).
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import boto3

ADMIN = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and credentials that it accepts."""

    endpoint_url: str
    access_key: str
    secret_key: str
    certificate: str = ""  # a file that clients trust; empty: no HTTPS

    def environment(self) -> dict[str, str]:
        """Settings of a process that uses it."""
        trust = {"AWS_CA_BUNDLE": self.certificate} if self.certificate else {}
        return {
            **trust,
            "S3_ENDPOINT_URL": self.endpoint_url,
            "S3_ADDRESSING_STYLE": "path",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
        }

    def create_bucket(self, name: str) -> None:
        """A bucket of the test's own."""
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        place = {"endpoint_url": self.endpoint_url, "verify": self.certificate or None}
        client = boto3.client("s3", region_name="us-east-1", **place, **keys)
        client.create_bucket(Bucket=name)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """The server named by S3_ENDPOINT_URL, or a moto server with signature checks."""
    if "S3_ENDPOINT_URL" in os.environ:
        keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        yield S3Server(os.environ["S3_ENDPOINT_URL"], *keys)
        return
    port = free_port()
    # moto checks signatures after the first n requests, which create the user
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        endpoint_url = f"http://127.0.0.1:{port}"
        _wait_until_up(port)
        yield S3Server(endpoint_url, *_create_user(endpoint_url))
    finally:
        process.terminate()
        process.wait()


def _create_user(endpoint_url: str) -> tuple[str, str]:
    iam = boto3.client("iam", endpoint_url=endpoint_url, **ADMIN)
    iam.create_user(UserName="tester")
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
    iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=policy)
    key = iam.create_access_key(UserName="tester")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(port: int) -> None:
    for _ in range(6000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the S3 server did not start")


@dataclass
class FaultyProxy:
    """Forwards to a server; a seeded share of the requests fails in one of several ways."""

    target: str
    share: float = 0.0
    faults: tuple[str, ...] = ("slow_down", "cut_upload", "lost_answer", "truncated_body")
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    counts: dict[str, int] = field(default_factory=dict)

    def next_fault(self) -> str | None:
        fault = self.rng.choice(self.faults) if self.rng.random() < self.share else None
        self.counts[fault or "passed"] = self.counts.get(fault or "passed", 0) + 1
        return fault


ERRORS = {
    "slow_down": (503, "SlowDown"),
    "internal_error": (500, "InternalError"),
    "access_denied": (403, "AccessDenied"),
    "no_such_bucket": (404, "NoSuchBucket"),
}


@contextmanager
def faulty_proxy(server: S3Server, **options: object) -> Iterator[tuple[S3Server, FaultyProxy]]:
    """A server like ``server``, reached through a proxy whose faults the caller sets."""
    proxy = FaultyProxy(server.endpoint_url, **options)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            fault = proxy.next_fault()
            if fault == "cut_upload":
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                self._hang_up()
                return
            body = self._body()
            if fault in ERRORS:
                self._refuse(*ERRORS[fault])
                return
            self._forward(body, fault)

        def _body(self) -> bytes:
            """As the client sent it; one without a length comes in chunks, each after its size."""
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():  # the headers after the last one
                pass
            return b"".join(chunks)

        def _forward(self, body: bytes, fault: str | None) -> None:
            connection = http.client.HTTPConnection(urlsplit(proxy.target).netloc, timeout=30)
            headers = dict(self.headers)
            is_chunked = "Transfer-Encoding" in headers
            parts = iter([body]) if is_chunked else body
            connection.request(self.command, self.path, parts, headers, encode_chunked=is_chunked)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault == "lost_answer":
                self._hang_up()
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            self.end_headers()
            if fault == "truncated_body" and content:
                self.wfile.write(content[: len(content) // 2])
                self._hang_up()
            else:
                self.wfile.write(content)

        def _refuse(self, status: int, code: str) -> None:
            content = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _hang_up(self) -> None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def log_message(self, *args: object) -> None: ...

    for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler._serve)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{listener.server_address[1]}"
        yield S3Server(url, server.access_key, server.secret_key), proxy
    finally:
        listener.shutdown()
        listener.server_close()
