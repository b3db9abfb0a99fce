"""The page that follows a study: a study grows while a browser has it open."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import serve
from orchestrator.live.server import LiveServer
from orchestrator.live.watch import Watch
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_log import TrialLog
from testing.counting_store import CountingStore
from testing.servers.browser import CHROMIUM, open_tab
from testing.study_fixtures import finish, new_record, propose, run_trial, train_epochs

TAG = "<img src=x onerror=alert(1)>"
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open it in")


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


@pytest.fixture
def record(store: CountingStore, tmp_path: Path) -> StudyRecord:
    record = new_record(store, question=TAG, search={"num_trials": 6})
    run_trial(record, 0, tmp_path / "c", 0.2, 0.3, 0.5)
    run_trial(record, 1, tmp_path / "c", 0.1, state="pruned")
    train_epochs(record, propose(record, 2), tmp_path / "c", 0.3)
    return record


@pytest.fixture
def server(record: StudyRecord) -> Iterator[LiveServer]:
    with LiveServer(Watch(record.store, record.name, interval_s=0.05), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: LiveServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def texts(server: LiveServer, path: str = "/study") -> dict[str, str]:
    """Title -> HTML, once there is any."""
    content = wait_for(lambda: (c := json.load(ask(server, path)))["sections"] and c)
    return {section["title"]: section["html"] for section in content["sections"]}


def hold(record: StudyRecord, beat: int) -> None:
    """The heartbeat of a driver."""
    content = {"host": "node-1 pid:[1] x", "pid": 42, "started": 0, "token": "t", "beat": beat}
    record.store.write_json(record.keys.lease(1), content)


@in_a_browser
def test_a_page_that_is_open_follows_the_study(
    record: StudyRecord, server: LiveServer, tmp_path: Path
) -> None:
    hold(record, 1)
    with open_tab() as tab:
        tab.go(server.url)
        tab.wait_for("document.body.innerText.includes('running 1')")
        tab.wait_for("document.querySelectorAll('[data-id=learning-curves] .trace').length == 3")
        assert tab.evaluate("document.getElementById('question').textContent") == TAG
        text = tab.text()
        for shown in (
            *("waiting 3", "complete 1", "pruned 1", "a reason", "Driver: at work (process 42"),
            *("Slots that train: 1 of 2", "Trial 3 is proposed next: a slot is free.", "1/3"),
        ):
            assert shown in text

        with TrialLog(record, 2, 2) as log:
            log.add("epoch", **{"val/top1": 0.3}, note=TAG)
        tab.evaluate("[...document.querySelectorAll('a')].find(a => a.textContent == '2').click()")
        tab.wait_for("document.querySelector('pre')?.textContent.includes('val/top1=0.3')")
        assert TAG in tab.evaluate("document.querySelector('pre').textContent")

        finish(record, record.trial(2).info, "complete", 0.3, 0.6)
        run_trial(record, 3, tmp_path / "c", 0.7)
        hold(record, -1)
        tab.wait_for("document.body.innerText.includes('complete 3')")
        tab.wait_for("document.querySelectorAll('[data-id=learning-curves] .trace').length == 4")
        best = "[data-id=trials-best-first] tr[data-trial]"
        tab.wait_for(f"document.querySelector('{best}').dataset.trial == '3'")
        assert "gave the study back" in tab.text()
        heights = "[...document.querySelectorAll('.js-plotly-plot')].map(e => e.offsetHeight)"
        assert min(tab.evaluate(heights)) >= 300
        tab.wait_for("document.querySelector('#trial').innerText.includes('complete')")
        assert tab.evaluate("document.querySelectorAll('img').length") == 0
        assert tab.seen.errors == []
        assert all(url.startswith((server.url, "data:")) for url in tab.seen.requests)


@in_a_browser
def test_a_narrow_page_fits(server: LiveServer) -> None:
    with open_tab() as tab:
        tab.resize(390, 800)
        tab.go(server.url)
        tab.wait_for("document.querySelectorAll('.main-svg').length >= 10")
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_number_of_viewers_changes_nothing_for_the_store(
    store: CountingStore, record: StudyRecord, server: LiveServer
) -> None:
    texts(server)
    store.forget()
    for _ in range(50):
        assert ask(server, "/study").status == 200
    looks = store.num_lists
    wait_for(lambda: ask(server, "/study") and store.num_lists > looks + 2)
    assert store.fetched == {}, "nothing has changed"
    propose(record, 3)
    wait_for(lambda: "waiting 2" in texts(server)["Now"])
    assert store.fetched == {"trial.json": 1}


def test_a_page_that_nobody_has_open_costs_nothing(record: StudyRecord, tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "store")
    watch = Watch(store, record.name, interval_s=0)
    watch.study()
    wait_for(lambda: watch.age_s is not None)
    looks = store.num_lists
    time.sleep(0.2)
    assert store.num_lists == looks == 1


def test_what_is_shown_already_is_not_sent_again(server: LiveServer) -> None:
    texts(server)
    first = ask(server, "/study")
    tag = str(first.headers["ETag"])
    again = ask(server, "/study", **{"If-None-Match": tag})
    assert (again.status, again.read(), again.headers["ETag"]) == (304, b"", tag)
    assert int(str(again.headers["X-Age-Seconds"])) < 60


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8400", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("evil.example:8400", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        ("[::1", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(
    server: LiveServer, host: str, status: int
) -> None:
    answer = ask(server, "/", Host=host)
    assert answer.status == status
    assert (b"<script" in answer.read()) == (status == 200)


def test_it_listens_on_the_loopback_address_and_only_reads(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert [ask(server, path).status for path in ("/../pyproject.toml", "/store", "/trials/x")] == [
        404
    ] * 3
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("POST", "/study", body=b"{}")
    assert connection.getresponse().status == 501
    policy = str(ask(server, "/").headers["Content-Security-Policy"])
    assert "script-src 'self' 'unsafe-eval';" in policy
    assert "default-src 'none'" in policy


def test_text_of_the_record_is_no_html(
    record: StudyRecord, server: LiveServer, tmp_path: Path
) -> None:
    result = finish(record, record.trial(2).info, "failed", 0.3, write=False)
    record.write_result(result.model_copy(update={"reason": TAG}))
    with TrialLog(record, 2, 1) as log:
        log.add(TAG, message=TAG)
    assert "&lt;img" in texts(server)["Why trials were stopped or failed"]
    shown = "".join(texts(server).values()) + "".join(texts(server, "/trials/2").values())
    assert shown.count("&lt;img") >= 3
    assert "<img" not in shown


def test_damage_is_named_and_hides_nothing_else(record: StudyRecord, server: LiveServer) -> None:
    record.store.write_text(record.keys.trial(1).result, "{")
    found = texts(server)
    assert "trials/0001/result.json" in found["Left out"]
    assert 'data-trial="0"' in found["Trials, best first"]


def test_a_store_that_is_away_leaves_what_was_seen(record: StudyRecord, tmp_path: Path) -> None:
    class Away(LocalStore):
        is_away = False

        def versions(self, prefix: str) -> dict[str, str]:
            if self.is_away:
                raise OSError("the disk is gone")
            return super().versions(prefix)

    store = Away(tmp_path / "store")
    watch = Watch(store, record.name, interval_s=0)
    wait_for(lambda: json.loads(watch.study().body)["sections"])
    store.is_away = True
    content = wait_for(lambda: (c := json.loads(watch.study().body))["problem"] and c)
    assert content["problem"] == "the disk is gone"
    assert content["sections"]
    store.is_away = False
    wait_for(lambda: json.loads(watch.study().body)["problem"] == "")


def test_a_trial_that_is_not_there_is_named(server: LiveServer) -> None:
    assert "has no trial 99" in texts(server, "/trials/99")["Left out"]


def test_the_command_refuses_a_port_that_is_taken_and_a_study_that_is_none(
    record: StudyRecord, server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", record.store.uri]
    assert serve.main(["depth", "--port", str(server.server_port), *place]) == 2
    assert "name another port, or 0" in capsys.readouterr().err
    assert serve.main(["none", *place]) == 2
    assert "'none': not found" in capsys.readouterr().err
