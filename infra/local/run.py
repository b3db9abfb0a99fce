"""The services of infra/compose without Docker: plain processes on the loopback address, and a
sweep through them.

    .venv/bin/python infra/local/run.py [FILE.yaml] [--keep] [--set KEY=VALUE ...]

MLflow's and Ray's commands and settings are those of ``compose.yaml``, with addresses and folders
of this machine put in; PostgreSQL is the system's; an S3-protocol server that keeps its objects in
memory (moto) stands in for MinIO.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import psycopg
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra" / "compose"
BIN = Path(sys.executable).parent
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 30.0


class Services:
    """The running services. Start them in order; all end with the ``with`` block, the last one
    first.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        names = (
            "s3",
            "postgres",
            "mlflow",
            "gcs",
            "dashboard",
            "metrics-2",
            "metrics-3",
            "agent-2",
            "agent-3",
        )
        self.ports = {name: _free_port() for name in names}
        script = subprocess.run(
            ["sh", COMPOSE / "new-secrets.sh"], capture_output=True, text=True, check=True
        )
        self.secrets = dict(line.split("=") for line in script.stdout.splitlines())
        self._services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]

    def __enter__(self) -> Services:
        self.folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vc-local-"))
        )
        self.folder.chmod(0o755)  # PostgreSQL's own user must reach its files
        try:
            for start in (
                self._start_s3,
                self._start_postgres,
                self._start_mlflow,
                self._start_ray,
            ):
                start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def s3_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard']}"

    @property
    def token(self) -> dict[str, str]:
        """The environment of a client of Ray."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.secrets["RAY_AUTH_TOKEN"]}

    def sweep(self, experiment: str, *options: str) -> int:
        """Submits a sweep as a job, prints its log, and returns the exit code."""
        command: list[str | Path] = [
            *(BIN / "ray", "job", "submit", "--address", self.dashboard_url, "--working-dir", ROOT),
            *("--runtime-env", ROOT / "infra" / "job.yaml"),
            *("--", "python", "-m", "orchestrator.sweep", experiment, *options),
        ]
        return subprocess.run(command, env=os.environ | self.token).returncode

    def _start_s3(self) -> None:
        port = self.ports["s3"]
        self._run("s3", [BIN / "moto_server", "-H", "127.0.0.1", "-p", str(port)], {})
        _wait("the S3 server", lambda: _answers(self.s3_url))
        keys = {
            "aws_access_key_id": "vitaclip",
            "aws_secret_access_key": self.secrets["STORE_SECRET_KEY"],
        }
        boto3.client("s3", endpoint_url=self.s3_url, region_name="us-east-1", **keys).create_bucket(
            Bucket="vitaclip"
        )

    def _start_postgres(self) -> None:
        """PostgreSQL refuses to run as root: then it runs as the user that its package made."""
        programs, files = _postgres_programs(), self.folder / "postgres"
        user = "postgres" if os.geteuid() == 0 else None
        password = self.folder / "password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        files.mkdir(mode=0o700)
        if user:
            for path in (files, password):
                os.chown(path, pwd.getpwnam(user).pw_uid, -1)
        initdb: list[str | Path] = [programs / "initdb", "-D", files, f"--pwfile={password}"]
        subprocess.run(
            [*initdb, "--username=mlflow", "--auth=scram-sha-256"],
            user=user,
            cwd=files,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        password.unlink()
        port = str(self.ports["postgres"])
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={files}"]
        self._run(
            "postgres", [programs / "postgres", "-D", files, "-p", port, *options], {}, user=user
        )
        _wait("PostgreSQL", self._create_database)

    def _create_database(self) -> bool:
        address = f"host=127.0.0.1 port={self.ports['postgres']} user=mlflow dbname=postgres"
        try:
            with psycopg.connect(
                address, password=self.secrets["POSTGRES_PASSWORD"], autocommit=True
            ) as connection:
                connection.execute("CREATE DATABASE mlflow")
        except psycopg.OperationalError:
            return False
        return True

    def _start_mlflow(self) -> None:
        users = (COMPOSE / "mlflow-auth.ini").read_text().replace("/data/", f"{self.folder}/")
        (self.folder / "mlflow-auth.ini").write_text(users)
        self._run_composed("mlflow")
        _wait("MLflow", lambda: _answers(f"{self.mlflow_url}/health"))

    def _start_ray(self) -> None:
        """Two nodes with addresses of their own; Ray would replace 127.0.0.1 by a public one."""
        self._start_ray_node("ray-head", 2, "--dashboard-port", str(self.ports["dashboard"]))
        self._start_ray_node("ray-worker", 3)

    def _start_ray_node(self, service: str, number: int, *options: str) -> None:
        port = self.ports[f"agent-{number}"]
        own = (
            *("--node-ip-address", f"127.0.0.{number}", "--dashboard-agent-listen-port", str(port)),
            # a node removes and unpacks a job's working directory in its folder, even if another
            # one runs there
            *("--temp-dir", str(self.folder / f"ray-{number}")),
        )
        self._run_composed(service, number, *own, *options)
        _wait(service, lambda: _answers(f"http://127.0.0.{number}:{port}/api/local_raylet_healthz"))

    def _run_composed(self, service: str, number: int = 1, *options: str) -> None:
        """Runs a service's command with its environment, as compose.yaml has them."""
        here = self._addresses(number)
        environment = {
            name: _replace(_interpolate(str(value), self.secrets), here)
            for name, value in self._services[service]["environment"].items()
        }
        program, *words = shlex.split(_replace(self._services[service]["command"], here))
        self._run(service, [BIN / program, *words, *options], environment)

    def _addresses(self, number: int) -> dict[str, str]:
        return {
            "--port 6379": f"--port {self.ports['gcs']}",
            "--port 5000": f"--port {self.ports['mlflow']}",
            "export-port 8080": f"export-port {self.ports.get(f'metrics-{number}')}",
            "ray-head:6379": f"127.0.0.2:{self.ports['gcs']}",
            "mlflow:5000": f"127.0.0.1:{self.ports['mlflow']}",
            "minio:9000": f"127.0.0.1:{self.ports['s3']}",
            "@postgres/": f"@127.0.0.1:{self.ports['postgres']}/",
            "0.0.0.0": "127.0.0.1",
            "/etc/mlflow/auth.ini": str(self.folder / "mlflow-auth.ini"),
            "/data/": f"{self.folder}/",
        }

    def _run(
        self,
        name: str,
        command: Sequence[object],
        environment: Mapping[str, str],
        *,
        user: str | None = None,
    ) -> None:
        own = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(self.folder)}
        self._stack.enter_context(
            _process(name, command, own | dict(environment), self.folder, user)
        )


@contextmanager
def _process(
    name: str,
    command: Sequence[object],
    environment: dict[str, str],
    folder: Path,
    user: str | None,
) -> Iterator[None]:
    words = [str(word) for word in command]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            words, env=environment, cwd=folder, stdout=log, stderr=log, user=user
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _interpolate(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("${" + name + ":?see README.md}", value)
    return text


def _replace(text: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def _postgres_programs() -> Path:
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return Path(found).resolve().parent
    if not folders:
        sys.exit(
            "PostgreSQL: found no initdb in PATH or /usr/lib/postgresql; install the package "
            "postgresql"
        )
    return folders[-1].parent


def _wait(name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} did not start within {_START_TIMEOUT_S:.0f} s; see its log")
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the sweep's exit code."""
    parser = argparse.ArgumentParser(
        prog="python infra/local/run.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "file", nargs="?", default="experiments/prompt_depth.yaml", metavar="FILE.yaml"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the services up until Enter is pressed"
    )
    options, rest = parser.parse_known_args(arguments)
    with Services() as services:
        code = services.sweep(options.file, *rest)
        if options.keep:
            password = services.secrets["MLFLOW_TRACKING_PASSWORD"]
            print(f"MLflow: {services.mlflow_url}, user admin, password {password}")
            input("Enter ends the services: ")
    return code


if __name__ == "__main__":
    sys.exit(main())
