"""Figures as published: the table that is shipped, how it is read and how it is shown."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from orchestrator import published
from orchestrator.config import Benchmark
from orchestrator.display.published import published_table
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.evaluation.published import (
    TABLE,
    WHOLE,
    PublishedFigure,
    figures_beside,
    read_published,
)
from testing.study_fixtures import split_score
from vitaclip.config import DataConfig
from vitaclip.data.formats import FORMATS
from vitaclip.data.vifi_clip import PUBLISHED
from vitaclip.errors import InputError

FIGURES = read_published()
METHODS = {
    *("frozen_clip", "vita_clip", "x_clip", "vifi_clip", "st_adapter", "aim", "open_vclip"),
    *("froster", "ost", "tc_clip", "mote"),
}


def figure(method: str, benchmark: str, **circumstances: object) -> PublishedFigure:
    """The only one of these circumstances."""
    found = [
        figure
        for figure in FIGURES
        if (figure.method, figure.benchmark) == (method, benchmark)
        and all(getattr(figure, name) == value for name, value in circumstances.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_the_fields_methods_are_in_the_table() -> None:
    assert {figure.key for figure in FIGURES} >= METHODS


def test_no_figure_stands_twice() -> None:
    seen = Counter(
        (f.method, f.benchmark, f.metric, f.splits, f.trained_on, f.frames, f.views, f.source)
        for f in FIGURES
    )
    assert [key for key, count in seen.items() if count > 1] == []


def test_datasets_and_splits_are_those_that_can_be_scored() -> None:
    for figure in FIGURES:
        dataset = figure.benchmark.partition("/")[2]
        known = {*FORMATS[dataset].splits, *PUBLISHED.get(dataset, ()), WHOLE}
        assert known.issuperset(figure.splits), figure
        if figure.trained_on and ".." not in figure.trained_on:
            name, _, split = figure.trained_on.partition("/")
            assert split in {*FORMATS[name].splits, *PUBLISHED.get(name, ())}, figure


def test_protocols_have_the_metrics_that_were_published() -> None:
    for figure in {(f.benchmark, f.metric): f for f in FIGURES if f.splits}.values():
        mode, _, dataset = figure.benchmark.partition("/")
        values = {"dataset": dataset, "split": figure.splits, "mode": mode}
        benchmark: BenchmarkConfig = TypeAdapter(Benchmark).validate_python(values)
        metrics = benchmark.summarize([split_score([0, 1], [0, 0], s) for s in benchmark.splits])
        for suffix in ("", "_ci95_low", "_ci95_high"):
            assert f"{figure.benchmark}/{figure.metric}{suffix}" in metrics


def test_harmonic_means_are_those_of_their_bases_and_novels() -> None:
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for f in FIGURES:
        if f.benchmark.startswith("base_to_novel/"):
            groups.setdefault((f.method, f.benchmark), {})[f.metric] = f.percent
    assert len(groups) > 40
    for place, found in groups.items():
        mean = (
            2
            * found["base_top1"]
            * found["novel_top1"]
            / sum((found["base_top1"], found["novel_top1"]))
        )
        assert found["top1"] == pytest.approx(mean, abs=0.15), place


def test_figures_are_as_their_sources_print_them() -> None:
    clip = figure("frozen CLIP", "zero_shot/hmdb51", splits=("test_1", "test_2", "test_3"))
    assert (clip.printed, clip.origin, clip.trained_on) == ("47.9 ± 0.5", "rerun", None)
    vita = figure("Vita-CLIP", "supervised/kinetics400", frames="8", views="4x3")
    assert (vita.printed, vita.circumstances) == ("81.8", "8 frames, 4x3 views")
    froster = figure("FROSTER", "zero_shot/ucf101", splits=(WHOLE,))
    assert (froster.printed, froster.circumstances) == (
        "85.0",
        "8 frames, 3x1 views, all videos",
    )
    few = figure("MoTE", "supervised/hmdb51", trained_on="hmdb51/few_shot_4")
    assert (few.printed, few.circumstances) == ("63.9", "1x1 views, trained on hmdb51/few_shot_4")


def test_figures_of_the_same_training_stand_beside_it() -> None:
    few = figures_beside(
        "supervised/hmdb51", DataConfig(dataset="hmdb51", train_split="few_shot_4")
    )
    assert {method: [f.printed for f in found] for method, found in few.items()} == {
        "X-CLIP": ["57.3"],
        "ViFi-CLIP": ["62.7"],
        "OST": ["62.9"],
        "TC-CLIP": ["62.3"],
        "MoTE": ["63.9"],
    }
    other = figures_beside("supervised/hmdb51", DataConfig(dataset="quickstart"))
    assert [f.printed for f in other["X-CLIP"]] == ["53.0", "57.3", "62.8", "64.0"]
    zero = figures_beside("zero_shot/ucf101", DataConfig(dataset="kinetics400"))
    assert [f.printed for f in zero["frozen CLIP"]] == ["73.8 ± 0.6"]
    assert figures_beside("zero_shot/quickstart", DataConfig()) == {}


def test_two_figures_of_the_same_circumstances_are_both_shown() -> None:
    table = published_table(["supervised/kinetics400"], DataConfig(dataset="kinetics400"))
    assert table is not None
    assert ["ST-Adapter", "8 frames, 3x1 views", "0.822, 0.820"] in table.rows


@pytest.mark.parametrize(
    ("cell", "instead", "message"),
    [
        ("47.9", "479", "percent: Input should be less than or equal to 100, found '479'"),
        ("top1", "top2", "metric: Input should be"),
        ("rerun", "theirs", "origin: Input should be"),
        ("zero_shot/hmdb51", "HMDB51", "benchmark: String should match pattern"),
        ("test_1 test_2", "test 1/2", "splits.1: String should match pattern"),
        ("224,,", "224,4,", "views: Value error, views: found '4', allowed is TEMPORALxSPATIAL"),
        ("224,", "224,,", "a cell too many: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_cell_is_told_with_its_line(
    cell: str, instead: str, message: str, tmp_path: Path
) -> None:
    head, row = TABLE.read_text().splitlines()[:2]
    assert cell in row
    table = tmp_path / "mine.csv"
    table.write_text(f"{head}\n{row.replace(cell, instead, 1)}\n")
    with pytest.raises(InputError) as error:
        read_published(table)
    assert str(error.value).startswith(f"mine.csv, line 2: {message}")


def test_the_command_lists_a_benchmarks_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert published.main(["zero_shot/kinetics600"]) == 0
    output = capsys.readouterr().out
    for text in ("75.8 ± 0.5", "16", "2x1", "TC-CLIP repository, README, models"):
        assert text in output
    assert published.main(["zero_shot/kinetics600", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["benchmark"] for row in found} == {"zero_shot/kinetics600"}
    assert published.main(["--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(FIGURES)


def test_a_benchmark_without_figures_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert published.main(["zero_shot/hmdb5"]) == 2
    assert "did you mean 'zero_shot/hmdb51'?" in capsys.readouterr().err
