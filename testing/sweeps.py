"""A sweep as its user runs it, in a process of its own, for the tests that kill it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from orchestrator.storage.study_record import StudyRecord
from testing.paths import ROOT

TRIAL_ACTOR = "ray::ImplicitFunc"  # the titles that Ray gives to processes
TRAIN_WORKER = "RayTrainWorker"
# the PYTHONPATH of processes that heed gates
GATE_PATH = os.pathsep.join([str(ROOT / "testing" / "gate"), str(ROOT)])
PATIENCE_S = 1200  # for what must happen: only a hang takes as long, however busy the machine is


class Gate:
    """A place in a sweep's files that none of its processes passes while the gate is closed."""

    def __init__(self, folder: Path, place: str) -> None:
        """Closed at first. ``place`` is a regular expression, looked for in each path that a
        process opens.
        """
        self._gate = folder / "gate"
        self.close(place)

    @property
    def environment(self) -> dict[str, str]:
        """For :func:`start_sweep`."""
        return {
            "VITACLIP_TEST_GATE": str(self._gate),
            "PYTHONPATH": GATE_PATH,
        }

    def close(self, place: str) -> None:
        """From now on, at another place."""
        self._reached = self._gate.with_suffix(f".reached-{zlib.crc32(place.encode())}")
        self._gate.with_suffix(".new").write_text(place)
        self._gate.with_suffix(".new").replace(self._gate)

    def is_reached(self) -> bool:
        """Whether a process waits there."""
        return self._reached.exists()

    def reached_by(self) -> str:
        """The id of the process that came there last."""
        return self._reached.read_text()

    def open(self) -> None:
        """Lets all go on."""
        self._gate.unlink()


def start_sweep(
    folder: Path, log: Path, environment: Mapping[str, str], *options: str
) -> subprocess.Popen[bytes]:
    """Runs ``study.yaml`` in ``folder``; what it prints is appended to ``log``."""
    command = [sys.executable, "-m", "orchestrator.sweep", "study.yaml", *options]
    with log.open("a") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), **environment},
            stdout=output,
            stderr=output,
        )


def wait_until(
    condition: Callable[[], object],
    sweep: subprocess.Popen[bytes],
    log: Path,
    timeout_s: float = PATIENCE_S,
) -> None:
    """Raises AssertionError, with the log, if the sweep ends or the time is over before the
    condition holds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert sweep.poll() is None, f"the sweep has ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nothing happened in {timeout_s} s:\n{log.read_text()}"
        time.sleep(0.05)


def eventually(condition: Callable[[], object]) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened in {PATIENCE_S} s"
        time.sleep(0.05)


def trainers(record: StudyRecord, number: int) -> list[int]:
    """The process ids of a trial's first worker, of all its attempts."""
    lines = map(json.loads, record.trial(number).log.splitlines())
    return [line["pid"] for line in lines if line["event"] == "start"]


def ray_processes(sweep: subprocess.Popen[bytes], title: str) -> list[psutil.Process]:
    """Processes of the sweep's own Ray whose title holds ``title``."""
    return titled(psutil.Process(sweep.pid).children(recursive=True), title)


def titled(processes: Iterable[psutil.Process], title: str) -> list[psutil.Process]:
    """Those of the processes that still run and whose title holds ``title``."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def untimed(value: Any) -> Any:
    """Metrics, or a whole result, without what the clock decides."""
    if isinstance(value, dict):
        # a checkpoint's key tells how many attempts there were
        timed = ("time/", "proposed_at", "finished_at", "durations", "checkpoint")
        return {key: untimed(item) for key, item in value.items() if not key.startswith(timed)}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def leftovers(folder: Path) -> list[str]:
    """What a sweep whose temporary files go into ``folder`` has left behind: files, and processes'
    commands. PyTorch's cache does not count: it makes one folder for each user when it is imported.
    """
    commands = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    return [
        *(str(path) for path in folder.iterdir() if not path.name.startswith("torchinductor_")),
        *(command for command in commands if str(folder) in command),
    ]


def check_closed_to_others(driver: subprocess.Popen[bytes]) -> None:
    """Nobody else reaches a driver's processes, and nobody without its token is answered."""
    open_to: dict[int, list[Any]] = {}
    for process in [
        psutil.Process(driver.pid),
        *psutil.Process(driver.pid).children(recursive=True),
    ]:
        sockets = process.net_connections("inet")
        open_to[process.pid] = [
            socket.laddr for socket in sockets if socket.status == psutil.CONN_LISTEN
        ]
    addresses = {address.ip for listening in open_to.values() for address in listening}
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, open_to
    [gcs] = [
        process
        for process in psutil.Process(driver.pid).children()
        if process.name() == "gcs_server"
    ]
    token = gcs.environ()["RAY_AUTH_TOKEN"]
    [address] = open_to[gcs.pid]
    strangers = (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        {"RAY_AUTH_MODE": "disabled"},
    )
    for credentials in strangers:
        client = f"ray._raylet.GcsClient('127.0.0.1:{address.port}')"
        code = f"import ray; {client}.internal_kv_keys(b'', timeout=60)"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=os.environ | credentials, capture_output=True, text=True)
        assert "AuthenticationError" in done.stderr, done.stderr
    shown = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not [command for command in shown if token in command]
