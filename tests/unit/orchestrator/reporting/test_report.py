"""The report: one page without a network, from studies of every shape."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import optuna
import pytest
from packaging.version import Version

from orchestrator import report
from orchestrator.reporting.confusions import confused_pairs
from orchestrator.reporting.figures import class_gains, figures, learning_curves
from orchestrator.reporting.optuna_view import optuna_study
from orchestrator.reporting.page import page, write_report
from orchestrator.reporting.study_data import read_study
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from orchestrator.yaml_file import load_study
from testing.motions import MOTIONS
from testing.paths import ROOT
from testing.servers.browser import CHROMIUM, open_tab, visit
from testing.study_fixtures import (
    finish,
    new_record,
    propose,
    run_trial,
    split_score,
    train_epochs,
    write_score,
)


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    record = new_record(LocalStore(tmp_path / "store"))
    for number, top1 in enumerate([0.2, 0.6, 0.5, 0.4]):
        run_trial(record, number, tmp_path / "c", top1 / 2, top1)
    run_trial(record, 4, tmp_path / "c", 0.1, state="pruned")
    finish(record, propose(record, 5), "failed")
    write_score(record, Baseline.of(record.trial(0).info.train), split_score([0, 0, 0], [0, 1, 2]))
    return record


def test_the_page_is_whole_and_loads_nothing(record: StudyRecord, tmp_path: Path) -> None:
    write_report(read_study(record), tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    without_plotly = re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!data:)""", without_plotly)
    assert "default-src 'none'" in html
    assert html.count("plotly-graph-div") == 8
    assert "How deep?" in html
    assert "0.333" in re.search(r'<tr class="clip">.*?</tr>', html)[0]  # type: ignore[index]
    pictures = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert pictures == {
        *("learning_curves.png", "pareto.png", "progress.png", "parallel_coordinates.png"),
        *("importances.png", "slices.png"),
    }


def test_data_is_no_html(tmp_path: Path) -> None:
    tag = "<b onclick=x>"
    space = {"backbone.pretrained": {"type": "categorical", "choices": [tag, "random"]}}
    record = new_record(
        LocalStore(tmp_path / "store"), search_space=space, question=tag, hypothesis=tag
    )
    trial = propose(record, 0)
    result = finish(record, trial, "failed", write=False)
    record.write_result(result.model_copy(update={"params": {"backbone.pretrained": tag}}))
    html = page(read_study(record))
    assert tag not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert html.count(escape(tag)) >= 3


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open it in")
# What stands outside of its figure, or is cut off at the page's edge.
CUT_OFF = """
    [...document.querySelectorAll('.js-plotly-plot')].flatMap(figure => {
        const box = figure.getBoundingClientRect();
        return [...figure.querySelectorAll('text')].filter(text => {
            const {width, left, right, top, bottom} = text.getBoundingClientRect();
            return width && (left < box.left - 1 || right > box.right + 1 ||
                             top < box.top - 1 || bottom > box.bottom + 1);
        }).map(text => text.textContent);
    })
"""


@in_a_browser
def test_a_browser_draws_every_figure_without_error_or_request(
    record: StudyRecord, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text(page(read_study(record)), encoding="utf-8")
    seen = visit(
        tmp_path / "report.html",
        "[...document.querySelectorAll('.plotly-graph-div')].map(e => "
        "e.querySelectorAll('.main-svg').length > 0)",
    )
    assert (seen.errors, seen.requests) == ([], [])
    assert seen.value == [True] * 8


def quickstart_page(folder: Path) -> str:
    """The report of the README's study, with long names; its address."""
    config = load_study(ROOT / "experiments/prompt_depth.yaml").model_dump(mode="json")
    config["search_space"]["prompts.depth"]["high"] = 4
    record = new_record(LocalStore(folder / "store"), **config)
    for number in range(3):
        trial = propose(record, number)
        params = {"prompts.num_global": 4, "text.num_context": 4, **trial.params}
        result = finish(record, trial, "complete", 0.2 + number / 10, write=False)
        record.write_result(result.model_copy(update={"params": params}))
    write_score(record, Baseline.of(record.trial(0).info.train), split_score([0, 0, 0], [0, 1, 2]))
    (folder / "report.html").write_text(page(read_study(record)), encoding="utf-8")
    return (folder / "report.html").as_uri()


@in_a_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_cut_off_and_what_is_wide_scrolls(tmp_path: Path, width: int) -> None:
    address = quickstart_page(tmp_path)
    with open_tab() as tab:
        tab.resize(width, 800)
        tab.go(address)
        tab.wait_for("document.querySelectorAll('.main-svg').length >= 16")
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert tab.evaluate(CUT_OFF) == []
        wide = tab.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
            ".map(e => e.textContent.slice(0, 12))"
        )
        assert len(wide) == (4 if width == 390 else 0), wide


@in_a_browser
def test_a_dark_page_has_light_ink(tmp_path: Path) -> None:
    address = quickstart_page(tmp_path)
    lightness = """(() => {
        const light = color => color.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3;
        const style = what => getComputedStyle(document.querySelector(what));
        return [style('body').backgroundColor, style('body').color, style('.xtitle').fill,
                style('.xtick text').fill].map(light);
    })()"""
    with open_tab() as tab:
        for dark in (False, True):
            tab.resize(1200, 800, dark=dark)
            tab.go(address)
            tab.wait_for("document.querySelectorAll('.xtick text').length")
            page_is, *ink_is = tab.evaluate(lightness)
            assert all((page_is < 60 and ink > 180) == dark for ink in ink_is)
            assert all((page_is > 200 and ink < 90) != dark for ink in ink_is)


@in_a_browser
def test_the_browser_would_tell_of_errors_and_requests(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<img src="http://127.0.0.1:9/a.png"><script>absent()</script>'
    )
    seen = visit(tmp_path / "a.html", "1 + 1")
    assert seen.requests == ["http://127.0.0.1:9/a.png"]
    assert any("absent is not defined" in error for error in seen.errors)
    assert seen.value == 2


def test_trials_that_have_not_finished_have_their_curves(
    record: StudyRecord, tmp_path: Path
) -> None:
    train_epochs(record, propose(record, 6), tmp_path / "c", 0.3, 0.4)
    curves = learning_curves(read_study(record))
    [running] = [curve for curve in curves.data if curve.name == "6 not finished"]
    assert (list(running.y), running.line.dash) == ([0.3, 0.4], "dot")


def test_optuna_opens_the_same_study(record: StudyRecord, tmp_path: Path) -> None:
    write_report(read_study(record), tmp_path / "report")
    study = optuna.load_study(study_name="depth", storage=f"sqlite:///{tmp_path}/report/optuna.db")
    assert [trial.user_attrs["number"] for trial in study.trials] == [0, 1, 2, 3, 4, 5]
    assert study.best_value == 0.6
    assert study.best_params["prompts.depth"] == 1
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED", "FAIL"]
    assert study.trials[4].intermediate_values == {1: 0.1}
    assert str(study.trials[1].duration) == "0:00:30"


@pytest.mark.parametrize("num_trials", [0, 1])
def test_a_study_that_has_just_begun_has_a_page(tmp_path: Path, num_trials: int) -> None:
    record = new_record(LocalStore(tmp_path / "store"))
    for number in range(num_trials):
        run_trial(record, number, tmp_path / "c", 0.5)
    html = page(read_study(record))
    assert "How deep?" in html
    # Optuna before 5.0 does not tell what is important in a single trial.
    is_old = Version(optuna.__version__) < Version("5")
    assert ("Not shown" in html) == (num_trials == 0 or is_old)


def test_published_figures_stand_beside_the_best_trial(tmp_path: Path) -> None:
    benchmarks = [
        {"dataset": "hmdb51", "split": ["test_1", "test_2", "test_3"], "mode": "zero_shot"},
        {"dataset": "quickstart", "split": "zero_shot", "mode": "zero_shot"},
    ]
    record = new_record(LocalStore(tmp_path / "store"), benchmarks=benchmarks)
    run_trial(record, 0, tmp_path / "c", 0.5)
    benchmark, _ = record.info.config.benchmarks
    clip = Baseline.of(record.trial(0).info.train)
    write_score(record, 0, split_score([0, 0], [0, 1], "test_1"), benchmark)
    write_score(record, clip, split_score([0, 0, 0], [0, 1, 2], "test_1"), benchmark)
    html = page(read_study(record))
    section = html.partition("<h2>Beside published figures</h2>")[2].partition("<h2>")[0]
    header, row = re.findall("<tr>.*?</tr>", section)
    columns, cells = re.findall("<th>(.*?)</th>", header), re.findall("<td.*?</td>", row)
    found = dict(zip((re.sub("<wbr>", "", name) for name in columns), cells, strict=True))
    assert {"X-CLIP", "ViFi-CLIP", "Open-VCLIP", "FROSTER", "TC-CLIP", "MoTE"} < found.keys()
    assert found["benchmark"] == "<td>zero_shot/hmdb51</td>"
    assert found["best trial"] == "<td>0.500</td>"
    assert found["frozen CLIP here"] == "<td>0.333</td>"
    assert "0.486 ± 0.006" in found["Vita-CLIP"]
    assert "8/32 frames" in found["Vita-CLIP"]
    assert "table 3" in found["Vita-CLIP"]
    assert found["Vita-CLIP"].startswith("<td class=published>")
    assert "not measured here" in section


def test_a_study_without_published_benchmarks_has_no_such_section(record: StudyRecord) -> None:
    assert "Beside published figures" not in page(read_study(record))


def test_two_objectives_are_drawn(tmp_path: Path) -> None:
    objectives = [{"metric": "val/top1"}, {"metric": "train/loss", "mode": "min"}]
    record = new_record(
        LocalStore(tmp_path / "store"), search={"num_trials": 3, "objectives": objectives}
    )
    for number in range(3):
        result = run_trial(record, number, tmp_path / "c", 0.1 * number, write=False)
        record.write_result(result.model_copy(update={"values": (0.1 * number, 1.0)}))
    data = read_study(record)
    assert [direction.name for direction in optuna_study(data).directions] == [
        "MAXIMIZE",
        "MINIMIZE",
    ]
    assert not isinstance(figures(data)["Parallel coordinates"], str)


def test_gains_are_over_clip_by_class(record: StudyRecord) -> None:
    write_score(record, 1, split_score([2, 1, 2], [0, 1, 2]))
    data = read_study(record)
    figure = class_gains(data.scores[1][0], data.scores[data.baselines[0]][0])
    assert dict(zip(figure.data[0].y, figure.data[0].x, strict=True)) == {
        "left": -1,
        "right": 1,
        "up": 1,
    }


def test_most_confused_pairs() -> None:
    split = split_score([1, 1, 2, 0, 1], [0, 0, 0, 2, 1])
    assert confused_pairs(split) == [(0, 1, 2), (2, 0, 1), (0, 2, 1)]


def test_frames_of_confused_clips_are_in_the_page(motion_dataset: str, tmp_path: Path) -> None:
    benchmark = {"dataset": motion_dataset, "split": "val", "mode": "supervised"}
    record = new_record(LocalStore(tmp_path / "store"), benchmarks=[benchmark])
    run_trial(record, 0, tmp_path / "c", 0.5)
    labels = [i % 4 for i in range(8)]
    split = split_score([1, *labels[1:]], labels, "val").model_copy(
        update={"classes": tuple(MOTIONS)}
    )
    write_score(record, 0, split, record.info.config.benchmarks[0])
    html = page(read_study(record))
    assert "moving left taken for moving right: 1 of 2 clips" in html
    assert "data:image/png;base64," in html


def test_the_command_writes_beside_a_tracking_server_that_is_away(
    record: StudyRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VITACLIP_STORE", record.store.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert report.main(["depth", "--output", str(tmp_path / "out")]) == 0
    assert "not logged to MLflow" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()
    assert report.main(["none"]) == 2
