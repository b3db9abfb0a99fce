"""Several hosts on this machine: network namespaces on a switch, each with an address, a disk
folder and a Ray node.

Needs root. A host's node is kept running as Kubernetes or systemd would do it: whenever it exits,
it is started again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
AGENT_PORT = 52365  # Ray's own choice
_SUPERVISOR = 'while true; do "$@"; echo "exited with $?"; sleep 2; done'
_ANSWERS = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)"
_START_TIMEOUT_S = 600


def obstacle() -> str | None:
    """Why there can be no such hosts here; None: there can."""
    if shutil.which("ip") is None:
        return "needs the command ip: install the package iproute2"
    probe = f"vp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"needs root and network namespaces: {made.stderr.strip()}"
    ip("netns", "del", probe)
    return None


def ip(*words: str) -> str:
    """Runs ``ip`` and returns what it prints."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Host 1, the head, has the address 198.18.0.1; a context manager that ends and removes all of
    them.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` has a short path: Ray's sockets lie in it."""
        self.folder = folder
        self._switch = f"vs{os.getpid()}"
        self._token = secrets.token_hex(16)
        self._supervisors: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Hosts:
        ip("netns", "add", self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for supervisor in self._supervisors:
            supervisor.kill()
            supervisor.wait()
        for number in self.numbers:
            self.kill(number)
            ip("netns", "del", self._name(number))
        ip("netns", "del", self._switch)

    @property
    def numbers(self) -> list[int]:
        """Of all hosts."""
        return list(range(1, len(self._supervisors) + 1))

    def start(self, *options: str) -> None:
        """Starts a host, and returns once its Ray node is up. ``options`` are those of ``ray
        start``.
        """
        number = len(self._supervisors) + 1
        self._connect(number)
        role = ("--head",) if number == 1 else ("--address", "198.18.0.1:6379")
        place = ("--node-ip-address", f"198.18.0.{number}", "--temp-dir", str(self._folder(number)))
        common = ("--block", "--disable-usage-stats", "--object-store-memory", str(100 * 2**20))
        node = self._command(number, RAY, "start", *role, *place, *common, *options)
        with (self.folder / f"host-{number}.log").open("w") as log:
            supervisor = ["sh", "-c", _SUPERVISOR, "supervisor", *node]
            self._supervisors.append(
                subprocess.Popen(supervisor, env=self._environment(number), stdout=log, stderr=log)
            )
        self.wait_for_node(number)

    def wait_for_node(self, number: int) -> None:
        """Until a host's Ray node is up."""
        url = f"http://198.18.0.{number}:{AGENT_PORT}/api/local_raylet_healthz"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self.run(number, sys.executable, "-c", _ANSWERS, url).returncode:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def run(self, number: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host; never raises on failure."""
        words = self._command(number, *command)
        return subprocess.run(words, env=self._environment(number), capture_output=True, text=True)

    def processes(self, number: int) -> list[psutil.Process]:
        """What runs on a host."""
        found = []
        for pid in ip("netns", "pids", self._name(number)).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def running(self, title: str) -> list[int]:
        """The hosts that run a process whose title holds ``title``."""
        found = []
        for number in self.numbers:
            with suppress(psutil.NoSuchProcess):
                if any(title in " ".join(process.cmdline()) for process in self.processes(number)):
                    found.append(number)
        return found

    def kill(self, number: int) -> None:
        """Ends all that runs on a host, as a power cut does; the host comes up again by itself."""
        for process in self.processes(number):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def plug(self, number: int, state: str) -> None:
        """Pulls a host's cable out of the switch (``down``) or puts it back (``up``)."""
        ip("-n", self._switch, "link", "set", f"port{number}", state)

    def logs(self) -> str:
        """What the nodes have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("host-*.log")))

    def _connect(self, number: int) -> None:
        host = self._name(number)
        ip("netns", "add", host)
        cable = ("type", "veth", "peer", "name", "eth0", "netns", host)
        ip("-n", self._switch, "link", "add", f"port{number}", *cable)
        ip("-n", self._switch, "link", "set", f"port{number}", "master", "switch", "up")
        ip("-n", host, "link", "set", "lo", "up")
        ip("-n", host, "addr", "add", f"198.18.0.{number}/24", "dev", "eth0")
        ip("-n", host, "link", "set", "eth0", "up")
        # by it a process learns its host's address
        ip("-n", host, "route", "add", "default", "dev", "eth0")

    def _command(self, number: int, *command: str | Path) -> list[str]:
        return ["ip", "netns", "exec", self._name(number), *map(str, command)]

    def _environment(self, number: int) -> dict[str, str]:
        own = self._folder(number)
        own.mkdir(exist_ok=True)
        return {
            **os.environ,
            "PATH": f"{RAY.parent}:{os.environ['PATH']}",
            "HOME": str(own),
            "TMPDIR": str(own),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "GLOO_SOCKET_IFNAME": "eth0",
        }

    def _folder(self, number: int) -> Path:
        return self.folder / f"h{number}"

    def _name(self, number: int) -> str:
        return f"vh{os.getpid()}-{number}"
