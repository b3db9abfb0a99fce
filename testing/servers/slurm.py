"""Slurm with two nodes on this machine: Debian's slurmctld, two slurmd and munge, on loopback.

Needs root. Node 1 has the address 127.0.0.2, node 2 has 127.0.0.3.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from testing.servers.s3_server import free_port

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_START_TIMEOUT_S = 120
# With ``cred_expire`` a job that was put back may start again after seconds, not minutes.
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
KillWait=10
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
MpiDefault=none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.2 Port={port_1} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.3 Port={port_2} CPUs=2
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def obstacle() -> str | None:
    """Why there can be no such cluster here; None: there can."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)}: install Debian's packages with `make slow-packages`"
    return None if os.geteuid() == 0 else "needs root: a node of Slurm runs jobs for any user"


class Slurm:
    """A context manager that ends all of it, jobs too."""

    def __init__(self, folder: Path) -> None:
        """``folder`` has a short path: sockets lie in it."""
        self._folder = folder
        self._opened = ExitStack()
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Slurm:
        folder = self._folder
        self._write_files()
        names = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        files = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in names]
        with self._opened as opened:
            self._start("munged", "--force", "--foreground", *files)
            self._start("slurmctld", "-D")
            for node in ("node1", "node2"):
                self._start("slurmd", "-D", "-N", node)
            self._wait_for_nodes()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 60
        while self.run("squeue", "--noheader", check=False) and time.monotonic() < deadline:
            time.sleep(0.5)
        self._opened.close()
        self._kill_what_is_left()

    def run(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def submit(self, *words: str, folder: Path, environment: Mapping[str, str]) -> str:
        """``sbatch`` in ``folder``; the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *words],
            cwd=folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol`` shows of a job."""
        words = self.run("scontrol", "show", "job", "--oneliner", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _kill_what_is_left(self) -> None:
        """Of jobs that did not end when they were cancelled."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                own = process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if own and process.pid != os.getpid():
                    process.kill()

    def _write_files(self) -> None:
        folder = self._folder
        for part in ("state", "node1", "node2"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o400)
        ports = {name: free_port() for name in ("port", "port_1", "port_2")}
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(_CONFIG.format(folder=folder, host=host, **ports))
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _start(self, *command: str) -> None:
        with (self._folder / "output.txt").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self._opened.callback(process.wait)
        self._opened.callback(process.terminate)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self.run("sinfo", "-h", "-N", "-o", "%t", check=False).split() != ["idle"] * 2:
            output = (self._folder / "output.txt").read_text(errors="replace")
            assert time.monotonic() < deadline, output
            time.sleep(0.5)
