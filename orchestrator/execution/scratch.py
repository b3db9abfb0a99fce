"""Temporary files and processes that survive nobody: each folder names its owner, and the next one
clears up.

A process that is killed cannot remove what it has made. So whoever makes a scratch folder first
removes those whose owners on this machine are dead, with the processes that still use them.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_PREFIX = "vitaclip-"
_OWNER_FILE = "owner.json"
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_SHARED_MEMORY = Path("/dev/shm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this process's own; all its temporary files, and those of processes it starts, go
    into it.

    At the end of the block the folder is removed, and processes that still use it are killed.
    """
    reap_scratch()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    unfinished = folder / f"{_OWNER_FILE}.new"
    unfinished.write_text(json.dumps(this_process()))
    unfinished.replace(folder / _OWNER_FILE)  # others read it: whole or not at all
    before = os.environ.get("TMPDIR")
    _use_for_temporary_files(str(folder / "scratch"))
    try:
        yield folder
    finally:
        _use_for_temporary_files(before)
        _remove(folder)


def reap_scratch() -> None:
    """Removes the scratch folders of dead processes of this machine, and ends the processes that
    use them.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):  # not yet named, or another process is removing it
            owner = json.loads((folder / _OWNER_FILE).read_text())
            if is_local(owner) and not is_alive(owner):
                _remove(folder)
    _reap_semaphores()


def _reap_semaphores() -> None:
    """Removes the named semaphores of Python's ``multiprocessing`` that no process has any more.

    Their names are random: whoever does not hold one already never finds it. The process that
    removes them at their owner's end may have been killed too.
    """
    orphans = {}
    for path in _SHARED_MEMORY.glob("sem.mp-*"):
        with suppress(OSError):
            if path.stat().st_uid == os.getuid():
                orphans[path.stat().st_ino] = path
    if not orphans:
        return
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended, or is another user's
            for line in maps.read_text().splitlines():
                if f"{_SHARED_MEMORY}/sem." in line:
                    orphans.pop(int(line.split()[4]), None)
    for path in orphans.values():
        path.unlink(missing_ok=True)


def this_process() -> dict[str, Any]:
    """Tells this process from every other one, here and elsewhere, in terms of JSON."""
    process = psutil.Process()
    return {"host": _host(), "pid": process.pid, "started": process.create_time()}


def is_local(process: dict[str, Any]) -> bool:
    """Whether a process that :func:`this_process` described runs, or ran, where its number means
    something here.
    """
    return bool(process["host"] == _host())


def is_alive(process: dict[str, Any]) -> bool:
    """Whether a local process still runs."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process["pid"])
        return bool(
            found.create_time() == process["started"] and found.status() != psutil.STATUS_ZOMBIE
        )
    return False


def _host() -> str:
    """This machine since its start, and this container on it: elsewhere process numbers mean
    nothing.

    Cloned machines share a name and the number of their first namespace, but no two starts share a
    boot id.
    """
    with suppress(OSError):
        return f"{socket.gethostname()} {_PID_NAMESPACE.readlink()} {_BOOT_ID.read_text().strip()}"
    return socket.gethostname()


def _use_for_temporary_files(path: str | None) -> None:
    tempfile.tempdir = path
    if path is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = path
        Path(path).mkdir(exist_ok=True)


def _remove(folder: Path) -> None:
    """Deletes the folder once what names it in its command line or environment is killed."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), process.environ().get("TMPDIR", "")]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)
