"""Scratch folders, when several processes make and clear them at the same moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.scratch import reap_scratch, scratch_folder


def test_a_folder_whose_owner_is_being_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_text = Path.write_text

    def write_while_another_process_clears_up(path: Path, *content: Any) -> int:
        path.touch()
        reap_scratch()
        return write_text(path, *content)

    monkeypatch.setattr(Path, "write_text", write_while_another_process_clears_up)
    with scratch_folder() as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


SEMAPHORES = """
import multiprocessing, sys
from multiprocessing.resource_tracker import _resource_tracker
locks = [multiprocessing.get_context("spawn").Lock() for _ in range(3)]
print(_resource_tracker._pid, *(lock._semlock.name.lstrip("/") for lock in locks), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="named semaphores are no files here")
def test_semaphores_of_the_dead_go_and_those_of_the_living_stay() -> None:
    command = [sys.executable, "-c", SEMAPHORES]
    dead, living = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    trackers, files = [], []
    for holder in (dead, living):
        assert holder.stdout is not None
        tracker, *names = holder.stdout.readline().split()
        trackers.append(int(tracker))
        # Other processes of this machine have semaphores too: only these are looked at.
        files.append([Path("/dev/shm", f"sem.{name}") for name in names])
    os.kill(trackers[0], signal.SIGKILL)  # it would remove them itself
    dead.kill()
    dead.wait()
    assert [[file.exists() for file in of_one] for of_one in files] == [[True] * 3, [True] * 3]
    reap_scratch()
    assert [[file.exists() for file in of_one] for of_one in files] == [[False] * 3, [True] * 3]
    living.communicate("")
    assert not any(file.exists() for file in files[1])
