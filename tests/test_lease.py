"""One driver per study: refused while the other lives, taken at once when it died, lost when it slept too long."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.execution.lease import Lease, LeaseLostError
from orchestrator.storage.store import LocalStore
from vitaclip.errors import InputError

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.execution.lease import Lease
from orchestrator.storage.store import LocalStore
with Lease(LocalStore(Path(sys.argv[1])), "study"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def newest(store: LocalStore) -> str:
    return max(store.list("study/leases"))


def as_another_host(store: LocalStore, beat: int = 1) -> None:
    """What a driver elsewhere would have left."""
    store.write_json(
        "study/leases/000001.json", {"host": "elsewhere x", "pid": 7, "started": 0, "beat": beat}
    )


def test_a_study_is_given_back_and_taken_again(store: LocalStore) -> None:
    for _ in range(2):
        with Lease(store, "study") as lease:
            lease.check()
    assert newest(store) == "study/leases/000002.json"


def test_a_second_driver_is_refused_and_told_who_holds_the_study(store: LocalStore) -> None:
    with (
        Lease(store, "study"),
        pytest.raises(InputError, match="process .* on this machine"),
        Lease(store, "study"),
    ):
        pass


def test_a_killed_driver_holds_nothing(store: LocalStore) -> None:
    root = Path(__file__).resolve().parents[1]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {holder.pid}"), Lease(store, "study"):
        pass
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with Lease(store, "study"):
        assert time.monotonic() - started < 5


def test_a_driver_elsewhere_is_given_time_to_show_life(store: LocalStore) -> None:
    as_another_host(store)
    with Lease(store, "study", dead_after_s=0.5):
        pass


def test_a_driver_elsewhere_that_beats_is_left_alone(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_another_host(store)
    monkeypatch.setattr("orchestrator.execution.lease.time.sleep", lambda _: as_another_host(store, beat=2))
    with pytest.raises(InputError, match="process 7 on elsewhere"), Lease(store, "study", dead_after_s=5):
        pass


def test_a_driver_that_slept_too_long_learns_that_it_lost(store: LocalStore) -> None:
    with Lease(store, "study", beat_s=0.05) as lease:
        store.create_json(
            "study/leases/000002.json", {"host": "elsewhere x", "pid": 7, "started": 0, "beat": 1}
        )
        time.sleep(0.5)
        with pytest.raises(LeaseLostError, match="took over"):
            lease.check()
    assert store.read_json("study/leases/000002.json")["beat"] == 1
