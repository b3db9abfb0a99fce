"""One driver per study: refused while another shows life, taken when it stood still, lost when it
slept too long.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.execution.lease import Lease, LeaseLostError
from orchestrator.execution.scratch import this_process
from orchestrator.storage.stores.local import LocalStore
from testing.paths import ROOT
from vitaclip.errors import InputError

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.execution.lease import Lease
from orchestrator.storage.stores.local import LocalStore
with Lease(LocalStore(Path(sys.argv[1])), "study", beat_s=0.1):
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
    said: list[str] = []
    for _ in range(2):
        with Lease(store, "study", say=said.append, dead_after_s=0.2) as lease:
            lease.check()
    assert newest(store) == "study/leases/000002.json"
    assert said == []  # nobody waited for a sign of life


def test_a_second_driver_is_refused_and_told_who_holds_the_study(store: LocalStore) -> None:
    with (
        Lease(store, "study", beat_s=0.05),
        pytest.raises(InputError, match="is being run by process"),
        Lease(store, "study"),
    ):
        pass


def test_a_killed_driver_holds_nothing_once_it_has_stood_still(store: LocalStore) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {holder.pid}"), Lease(store, "study"):
        pass
    holder.kill()
    holder.wait()
    said: list[str] = []
    with Lease(store, "study", say=said.append, dead_after_s=0.5):
        assert "was not given back" in said[0]


def test_a_beating_lease_is_not_taken_over_by_a_clone_of_its_machine(store: LocalStore) -> None:
    """Its process number means another process here, or none, and everything else about the two is
    equal.
    """
    clone = {**this_process(), "pid": 999_999, "started": 123.0, "token": "x"}
    store.create_json("study/leases/000001.json", {**clone, "beat": 0})
    ended = threading.Event()

    def keep_beating() -> None:
        beat = 1
        while not ended.wait(0.05):
            store.write_json("study/leases/000001.json", {**clone, "beat": beat})
            beat += 1

    thread = threading.Thread(target=keep_beating)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 999999"), Lease(store, "study"):
            pass
    finally:
        ended.set()
        thread.join()
    assert newest(store) == "study/leases/000001.json"


def test_two_clones_never_have_the_same_lease(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take the same number at once with the same process number: only one of them may believe
    it.
    """
    same = this_process()
    monkeypatch.setattr("orchestrator.execution.lease.this_process", lambda: same)
    first, second = Lease(store, "study"), Lease(store, "study")
    monkeypatch.setattr(Lease, "_newest", lambda _: None)
    with (
        first,
        pytest.raises(InputError, match="another driver that started at the same moment"),
        second,
    ):
        pass


def test_a_driver_elsewhere_is_given_time_to_show_life(store: LocalStore) -> None:
    as_another_host(store)
    with Lease(store, "study", dead_after_s=0.5):
        pass


def test_a_driver_elsewhere_that_beats_is_left_alone(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_another_host(store)
    monkeypatch.setattr(
        "orchestrator.execution.lease.time.sleep", lambda _: as_another_host(store, beat=2)
    )
    with (
        pytest.raises(InputError, match="process 7 on elsewhere"),
        Lease(store, "study", dead_after_s=5),
    ):
        pass


def check_until_the_next_beat(lease: Lease) -> None:
    while True:
        lease.check()
        time.sleep(0.01)


def test_a_driver_that_slept_too_long_learns_that_it_lost(store: LocalStore) -> None:
    with Lease(store, "study", beat_s=0.05) as lease:
        store.create_json(
            "study/leases/000002.json", {"host": "elsewhere x", "pid": 7, "started": 0, "beat": 1}
        )
        with pytest.raises(LeaseLostError, match="took over"):
            check_until_the_next_beat(lease)
    assert store.read_json("study/leases/000002.json")["beat"] == 1
