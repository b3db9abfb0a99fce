"""A real Ray cluster on loopback addresses, started with plain ``ray start`` and token
authentication.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import psutil

from testing.servers.s3_server import free_port

RAY = Path(sys.executable).parent / "ray"
_START_TIMEOUT_S = 600


class RayCluster:
    """Nodes at 127.0.0.2 (the head), 127.0.0.3, ...; a context manager that ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port, self.dashboard_port, self.metrics_port = free_port(), free_port(), free_port()
        self._nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """For ``ray.init`` and ``RAY_ADDRESS``."""
        return f"127.0.0.2:{self.port}"

    @property
    def dashboard(self) -> str:
        """For ``ray job`` and ``ray list``."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def credentials(self) -> dict[str, str]:
        """Variables that let a process in; nothing is read from or written to the user's home."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "HOME": str(self.folder)}

    @property
    def environment(self) -> dict[str, str]:
        """Of a client that has the token."""
        return {**os.environ, **self.credentials, "PATH": f"{RAY.parent}:{os.environ['PATH']}"}

    def start_node(self, *options: str, environment: Mapping[str, str] | None = None) -> int:
        """Starts the head, then further nodes; returns once the node takes jobs. The node's
        position in the list.
        """
        number = len(self._nodes) + 2
        agent_port = free_port()
        place = (
            "--node-ip-address",
            f"127.0.0.{number}",
            "--dashboard-agent-listen-port",
            str(agent_port),
        )
        head = (
            *("--head", "--port", str(self.port), "--dashboard-port", str(self.dashboard_port)),
            *(
                "--metrics-export-port",
                str(self.metrics_port),
                "--temp-dir",
                str(self.folder / "r"),
            ),
        )
        role = head if number == 2 else ("--address", self.address)
        common = ("--block", "--disable-usage-stats", "--object-store-memory", str(100 * 2**20))
        with (self.folder / f"node-{number}.log").open("w") as log:
            node = subprocess.Popen(
                [RAY, "start", *role, *place, *common, *options],
                env=self.environment | dict(environment or {}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._nodes.append(node)
        self._wait_for_agent(node, f"http://127.0.0.{number}:{agent_port}/api/local_raylet_healthz")
        return number - 2

    def kill_raylet(self, number: int) -> None:
        """Has a node vanish from the cluster, as by a power cut; one that was drained may have
        ended by itself.
        """
        for process in psutil.Process(self._nodes[number].pid).children(recursive=True):
            if process.name() == "raylet":
                process.kill()

    def drain(self, number: int, deadline_s: int) -> None:
        """Announces that a node will be gone after so many seconds, as the manifests in ``infra/``
        do.
        """
        listed = self._ray("list", "nodes", "--address", self.dashboard, "--format", "json")
        address = f"127.0.0.{number + 2}"
        node = next(node["node_id"] for node in json.loads(listed) if node["node_ip"] == address)
        reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test")
        deadline = ("--deadline-remaining-seconds", str(deadline_s))
        self._ray("drain-node", "--address", self.address, "--node-id", node, *reason, *deadline)

    def _ray(self, *arguments: str) -> str:
        done = subprocess.run(
            [RAY, *arguments], env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listed(self, kind: str) -> str:
        """What ``ray list`` shows of a kind of things, with all details."""
        return self._ray("list", kind, "--address", self.dashboard, "--detail", "--format", "json")

    def processes(self, number: int) -> list[psutil.Process]:
        """All of a node's."""
        node = psutil.Process(self._nodes[number].pid)
        return [node, *node.children(recursive=True)]

    def start_job(self, *arguments: str, output: IO[str]) -> subprocess.Popen[bytes]:
        """``ray job submit``, which goes on until the job has ended."""
        command: list[str | Path] = [RAY, "job", "submit", "--address", self.dashboard, *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)

    def run(
        self, *arguments: str | Path, timeout_s: float = 1000
    ) -> subprocess.CompletedProcess[str]:
        """``ray job ...`` as a client; never raises on failure."""
        command, *rest = (str(argument) for argument in arguments)
        return subprocess.run(
            [RAY, "job", command, "--address", self.dashboard, *rest],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            node.terminate()
        for node in self._nodes:
            try:
                node.wait(600)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, 9)

    def _wait_for_agent(self, node: subprocess.Popen[bytes], url: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and node.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError("".join(path.read_text() for path in self.folder.glob("node-*.log")))
