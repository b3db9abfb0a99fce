"""A study's trials as LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from orchestrator import report
from orchestrator.reporting.paper_table import csv_table, latex_table
from orchestrator.reporting.study_data import read_study
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import finish, new_record, propose, run_trial, split_score, write_score


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    record = new_record(LocalStore(tmp_path / "store"))
    for number, top1 in enumerate([0.2, 0.6]):
        run_trial(record, number, tmp_path / "c", top1)
    finish(record, propose(record, 2), "failed")
    write_score(record, Baseline.of(record.trial(0).info.train), split_score([0, 0, 0], [0, 1, 2]))
    return record


def test_latex_has_percent_and_the_best_of_each_column_bold(record: StudyRecord) -> None:
    lines = latex_table(read_study(record)).splitlines()
    assert lines[1:5] == [
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"depth & lr & val & zero\_shot/quickstart \\",
        r"\midrule",
    ]
    clip, rule, *points = lines[5:-2]
    assert clip.startswith(r"\multicolumn{2}{l}{frozen CLIP, ")
    assert clip.endswith(r"} & -- & 33.3 \\")
    assert rule == r"\midrule"
    assert points == [
        r"1 & 0.002 & \textbf{60.0} & \textbf{66.7} \\",
        r"0 & 0.001 & 20.0 & \textbf{66.7} \\",
    ]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_seeds_of_a_point_are_one_line_with_their_spread(tmp_path: Path) -> None:
    record = new_record(
        LocalStore(tmp_path), benchmarks=[], search={"num_trials": 4, "num_repeats": 2}
    )
    for number, top1 in enumerate([0.9, 0.1, 0.6, 0.8]):
        run_trial(record, number, tmp_path / "c", top1)
    points = latex_table(read_study(record)).splitlines()[7:-2]
    assert [point.rpartition("& ")[2] for point in points] == [
        r"\textbf{70.0 $\pm$ 14.1} \\",
        r"50.0 $\pm$ 56.6 \\",
    ]


def test_names_are_no_latex(tmp_path: Path) -> None:
    choices = [r"\input{a}", "50% & more_{x}"]
    space = {"backbone.pretrained": {"type": "categorical", "choices": choices}}
    record = new_record(LocalStore(tmp_path), search_space=space, benchmarks=[])
    for number, choice in enumerate(choices):
        result = finish(record, propose(record, number), "complete", 0.5, write=False)
        changed = {"params": {"backbone.pretrained": choice}, "benchmarks": {}}
        record.write_result(result.model_copy(update=changed))
    text = latex_table(read_study(record))
    assert r"\textbackslash{}input\{a\} & \textbf{50.0} \\" in text
    assert r"50\% \& more\_\{x\} & \textbf{50.0} \\" in text


def test_csv_has_every_trial_and_every_digit(record: StudyRecord) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(read_study(record)))))
    assert [row["trial"] for row in rows] == ["1", "0", "2", ""]
    assert [row["state"] for row in rows] == ["complete", "complete", "failed", ""]
    assert rows[0]["zero_shot/quickstart/top1"] == str(2 / 3)
    assert (rows[0]["prompts.depth"], rows[0]["val/top1"]) == ("1", "0.6")
    assert rows[2]["val/top1"] == ""
    assert rows[3]["model"].startswith("frozen CLIP")
    assert rows[3]["zero_shot/quickstart/top1"] == str(1 / 3)


def test_the_command_prints_one_of_them(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VITACLIP_STORE", record.store.uri)
    assert report.main(["depth", "--csv"]) == 0
    assert capsys.readouterr().out == csv_table(read_study(record))
    assert report.main(["depth", "--latex"]) == 0
    assert capsys.readouterr().out == latex_table(read_study(record))
    assert report.main(["depth", "--latex", "--csv"]) == 2
    assert "allowed is one of them" in capsys.readouterr().err
