"""A real MLflow server in a process of its own, which tests may kill."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from testing.servers.certificates import self_signed
from testing.servers.s3_server import free_port


class MlflowServer:
    """An MLflow server over a SQLite database and an artifact folder, or an ``s3://`` location."""

    def __init__(self, folder: Path, artifacts: str | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._command = [
            *(
                sys.executable,
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
            *("--artifacts-destination", artifacts or str(folder / "artifacts")),
        ]

    def guard(self, user: str, password: str) -> Path:
        """From the next start on: TLS, and only this user. Returns the certificate that clients
        must trust.
        """
        certificate, users = self_signed(self.folder), self.folder / "users.ini"
        users.write_text(
            f"[mlflow]\nadmin_username = {user}\nadmin_password = {password}\ndefault_permission = "
            "NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{self.folder / 'users.db'}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        tls = f"--ssl-certfile {certificate} --ssl-keyfile {self.folder / 'tls.key'}"
        self._command += ["--app-name", "basic-auth", "--uvicorn-opts", tls]
        self._environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
        }
        self.uri = self.uri.replace("http:", "https:")
        return certificate

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self._environment},
            )
        any_certificate = ssl._create_unverified_context()
        for _ in range(6000):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1, context=any_certificate)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.kill()
        raise TimeoutError(self._log.read_text())

    def kill(self) -> None:
        """Kills it with all its processes, at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
