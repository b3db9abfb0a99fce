"""TensorBoard opens a study's event files in a real browser, and follows a study that runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from orchestrator import report
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.servers.browser import CHROMIUM, Tab, open_tab
from testing.servers.s3_server import free_port
from testing.servers.web_program import serving
from testing.study_fixtures import begin, finish, new_record, propose, publish, run_trial

CURVES = ["time/epoch_s", "train/loss", "val/top1"]
# Of each card, by tag: value and step of each run's last point, from the table below its curves.
CARDS = r"""
    Object.fromEntries([...document.querySelectorAll('scalar-card')].map(card => [
        card.querySelector('[title]')?.title,
        Object.fromEntries(
            [...card.innerText.matchAll(/(trial_\d+)\s+\S+\s+(\S+)\s+(\d+)/g)]
                .map(([_, run, value, step]) => [run, [value, step]])
        )
    ]))
"""
# All texts, those of components too, which are no part of the page's own.
TEXTS = """
    (() => {
        const texts = [];
        const collect = node => {
            if (node.localName === 'style') return;
            if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent.trim());
            if (node.shadowRoot) collect(node.shadowRoot);
            node.childNodes.forEach(collect);
        };
        collect(document.body);
        return texts.filter(text => text).join('|');
    })()
"""


def test_the_command_exports_a_study_on_s3_that_runs(
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", f"s3://{bucket}/studies")
    a_study_that_runs(new_record(open_store(f"s3://{bucket}/studies")), tmp_path / "c")
    assert report.main(["depth", "--tensorboard"]) == 0
    assert capsys.readouterr().out == "tensorboard --logdir reports/tensorboard/depth\n"
    [path] = Path("reports/tensorboard/depth/trial_0003").iterdir()
    points = EventAccumulator(str(path)).Reload().Scalars("val/top1")
    assert [(point.step, round(point.value, 4)) for point in points] == [(1, 0.3), (2, 0.35)]
    assert [path.name for path in Path("reports").iterdir()] == ["tensorboard"]


def a_study_that_runs(record: StudyRecord, folder: Path) -> None:
    """Two trials that are complete, a pruned one, and one that has two epochs behind it."""
    run_trial(record, 0, folder, 0.1, 0.15, 0.2)
    run_trial(record, 1, folder, 0.5, 0.7, 0.6)
    run_trial(record, 2, folder, 0.05, state="pruned")
    trial = propose(record, 3)
    publish(record, trial, begin(record, 3), folder, 0.3, 0.35)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open it in")
def test_tensorboard_shows_curves_compares_trials_and_follows_the_study(tmp_path: Path) -> None:
    record = new_record(LocalStore(tmp_path / "store"))
    a_study_that_runs(record, tmp_path / "c")
    export(record, tmp_path / "events")
    with serving_tensorboard(tmp_path / "events") as url, open_tab() as tab:
        tab.resize(1600, 1600)  # a card that is not in sight draws nothing
        # an epoch takes 2 s, and the loss is 1 / epoch
        found = {
            "trial_0000": {"train/loss": "0.3333", "val/top1": "0.2", "step": "3"},
            "trial_0001": {"train/loss": "0.3333", "val/top1": "0.6", "step": "3"},
            "trial_0002": {"train/loss": "1", "val/top1": "0.05", "step": "1"},
            "trial_0003": {"train/loss": "0.5", "val/top1": "0.35", "step": "2"},
        }
        wait_for_curves(tab, url, found)
        rows = {
            "trial_0000": "0.0010000|0.0000|complete|0.20000|0.66667",
            "trial_0001": "0.0020000|1.0000|complete|0.70000|0.66667",
            "trial_0002": "0.0030000|2.0000|pruned|0.050000|1.0000",
        }
        wait_for_rows(tab, url, rows)
        assert "trial_0003" not in tab.evaluate(TEXTS)

        trial = record.trial(3).info
        publish(record, trial, begin(record, 3), tmp_path / "c", 0.3, 0.35, 0.45)
        finish(record, trial, "complete", 0.3, 0.35, 0.45)
        export(record, tmp_path / "events")
        found["trial_0003"] = {"train/loss": "0.3333", "val/top1": "0.45", "step": "3"}
        wait_for_curves(tab, url, found)
        assert steps(tab, "trial_0003", "val/top1") == [1, 2, 3]
        rows["trial_0003"] = "0.0040000|3.0000|complete|0.45000|0.66667"
        wait_for_rows(tab, url, rows)
        assert tab.seen.errors == []
        assert all(request.startswith(url) for request in tab.seen.requests)


def export(record: StudyRecord, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITACLIP_STORE", record.store.uri)
        assert report.main([record.name, "--tensorboard", "--output", str(folder)]) == 0


@contextmanager
def serving_tensorboard(folder: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1"]
    with serving([*command, *options], f"{url}/data/runs", os.environ):
        yield url


def wait_for_curves(tab: Tab, url: str, trials: dict[str, dict[str, str]]) -> None:
    """Until the cards of all curves say of each trial's last epoch what was found of it."""
    tab.go(f"{url}/?tagFilter={quote('^(' + '|'.join(CURVES) + ')$')}#timeseries")
    for tag in CURVES:
        card = {name: [found.get(tag, "2"), found["step"]] for name, found in trials.items()}
        tab.wait_for(
            f"JSON.stringify({CARDS}['{tag}']) === '{json.dumps(card, separators=(',', ':'))}'"
        )


def wait_for_rows(tab: Tab, url: str, rows: dict[str, str]) -> None:
    """Until the table of trials has these."""
    tab.go(f"{url}/#hparams")
    for name, row in rows.items():
        tab.wait_for(f"{TEXTS}.includes('{name}|{row}')")


def steps(tab: Tab, run: str, tag: str) -> list[int]:
    """Those of a curve's points, as the page is given them."""
    answer = tab.evaluate(
        f"fetch('data/plugin/scalars/scalars?run={run}&tag={tag}').then(found => found.json())"
    )
    return [step for _, step, _ in answer]
