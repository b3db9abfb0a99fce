"""What a sweep shows: sparse lines while it runs, and tables of its trials."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.commands.dry_run import expected_time
from orchestrator.commands.gpu_estimate import gpu_estimate
from orchestrator.display.progress import Progress
from orchestrator.display.tables import points_table, trials_table
from orchestrator.evaluation.ranking import best_first, pareto_set
from orchestrator.events.tally import Tally
from orchestrator.search.search_space import apply
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.local import LocalStore
from testing.study_fixtures import (
    STARTED,
    finish,
    history_of,
    new_record,
    propose,
    run_trial,
    study_config,
)

TWO_OBJECTIVES = [{"metric": "val/top1"}, {"metric": "val/loss", "mode": "min"}]


def result(number: int, *values: float, state: str = "complete") -> TrialResult:
    content: dict[str, Any] = {
        "number": number,
        "state": state,
        "params": {"prompts.depth": number // 2, "optimizer.lr": 1e-3},
        "values": values or None,
        "benchmarks": {"zero_shot/quickstart/top1": 0.25},
        "proposed_at": STARTED,
        "finished_at": STARTED + timedelta(seconds=30),
        "durations": {"train_s": 60.0, "benchmarks_s": 30.0},
    }
    return TrialResult.model_validate(content)


def text_of(renderable: object) -> str:
    console = Console(file=StringIO(), width=160)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_trials_stand_best_first_and_failed_ones_last() -> None:
    config = study_config()
    results = [
        result(0, 0.2),
        result(1, state="failed"),
        result(2, 0.9, state="pruned"),
        result(3, 0.4),
    ]
    assert [r.number for r in best_first(config, results)] == [3, 0, 2, 1]
    table = text_of(trials_table(config, results))
    rows = [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")]
    assert rows == ["3", "0", "2", "1"]
    for part in ("depth", "val/top1", "zero_shot/quickstart", "0.400", "0.250", "failed", "1.5"):
        assert part in table


def test_the_time_left_follows_from_finished_trials() -> None:
    resources = {"max_concurrent_trials": 2, "num_workers": 4, "gpus_per_worker": 1}
    config = study_config(search={"num_trials": 122}, resources=resources)
    assert "not known" in expected_time(config, [], 122)
    text = expected_time(config, [result(0, 0.2), result(1, 0.3)], 122)
    assert text == "about 1.00 hours of training are left, 8.0 GPU-hours"


def test_trials_are_counted_once_in_the_state_they_are_in(tmp_path: Path) -> None:
    record = new_record(LocalStore(tmp_path / "store"))
    run_trial(record, 0, tmp_path / "c", 0.3)
    finish(record, propose(record, 1), "failed")
    tally = Tally()
    tally.opened(Study(record.info.config, record))
    params = {"prompts.depth": 2, "optimizer.lr": 1e-3}
    train = apply(study_config().train, params)
    for number in (2, 3, 4, 5):
        tally.started(TrialInfo(number=number, params=params, train=train, proposed_at=STARTED))
    tally.epoch_ended(2, {"epoch": 1})
    for number, state in ((3, "complete"), (4, "failed"), (5, "pruned")):
        tally.training_ended(number, state)
    tally.finished(result(4, state="failed"))
    tally.finished(result(5, 0.1, state="pruned"))
    assert {number: running.metrics for number, running in tally.running.items()} == {
        2: {"epoch": 1}
    }
    assert tally.scoring == {3}
    assert tally.ended == {"complete": 1, "failed": 2, "pruned": 1}


def test_a_study_on_gpus_is_estimated_before_a_first_trial(
    motion_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"backbone": {"name": "ViT-B-16-quickgelu"}, "precision": "bf16", "epochs": 1000}
    train["data"] = {"dataset": motion_dataset, "num_workers": 4}
    resources = {"num_workers": 2, "gpus_per_worker": 0.5}
    config = study_config(train=train, resources=resources)
    text = gpu_estimate(config)
    assert "estimated for an H100: 582 clips/s each, fed by 33 cores" in text
    assert "(data.num_workers: 4)" in text
    assert "0.0 GPU-hours a trial, 0.0 hours on its 1 GPU(s)" in text
    monkeypatch.delenv("VITACLIP_DATA_MOTIONS")
    assert "GPU-hours" not in gpu_estimate(config)


def test_losses_are_best_when_small() -> None:
    config = study_config(search={"num_trials": 2, "objectives": TWO_OBJECTIVES[1:]})
    assert [r.number for r in best_first(config, [result(0, 2.0), result(1, 1.0)])] == [1, 0]


def test_the_pareto_front_is_marked() -> None:
    config = study_config(search={"num_trials": 4, "objectives": TWO_OBJECTIVES})
    results = [result(0, 0.9, 2.0), result(1, 0.5, 1.0), result(2, 0.5, 2.0), result(3, 0.9, 2.0)]
    assert pareto_set(config, results) == {0, 1, 3}
    assert text_of(trials_table(config, results)).count("on the Pareto front") == 3
    assert "Pareto" not in text_of(trials_table(study_config(), [result(0, 0.9)]))


def test_repeated_points_show_mean_and_spread() -> None:
    config = study_config(search={"num_trials": 4, "num_repeats": 2})
    table = text_of(
        points_table(config, [result(0, 0.2), result(1, 0.4), result(2, 0.6), result(3, 0.8)])
    )
    rows = [line for line in table.splitlines() if line.startswith("│")]
    assert "0.700 ± 0.141" in rows[0]
    assert "0.300 ± 0.141" in rows[1]


def test_repeated_points_show_their_benchmarks() -> None:
    config = study_config(
        search={"num_trials": 4, "num_repeats": 2},
        benchmarks=[{"dataset": "motions", "split": "val", "mode": "supervised"}],
    )
    results = [
        result(0, 0.2).model_copy(update={"benchmarks": {"supervised/motions/top1": 0.3}}),
        result(1, 0.4).model_copy(update={"benchmarks": {"supervised/motions/top1": 0.5}}),
        result(2, 0.6),
    ]
    rows = [line for line in text_of(points_table(config, results)).splitlines() if "│" in line]
    assert "0.600 ± 0.000" in rows[0]
    assert "-" in rows[0]
    assert "0.400 ± 0.141" in rows[1]


def test_without_a_terminal_there_are_few_plain_lines(tmp_path: Path) -> None:
    config = study_config()
    console = Console(file=StringIO(), width=120)
    params = {"prompts.depth": 2, "optimizer.lr": 1e-3}
    trial = TrialInfo(
        number=0, params=params, train=apply(config.train, params), proposed_at=STARTED
    )
    progress = Progress(console)
    progress.opened(Study(config, new_record(LocalStore(tmp_path))))
    progress.started(trial)
    progress.broke_off(0, "in a file\nPreemptedError: stopped in epoch 1")
    assert not progress.running
    progress.started(trial)
    for metrics in history_of(0.1, 0.2, 0.3):
        progress.epoch_ended(0, metrics)
    progress.training_ended(0, "complete")
    progress.finished(result(0, 0.3))
    progress.closed()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == lines[2] == "trial 0 starts: depth=2, lr=0.001"
    assert lines[1].endswith("goes on from its last checkpoint: PreemptedError: stopped in epoch 1")
    assert lines[-1] == "trial 0 complete (1/3): val/top1 0.300, zero_shot/quickstart/top1 0.250"
    assert len(lines) <= 5


def test_on_a_terminal_each_running_trial_has_a_line(tmp_path: Path) -> None:
    config = study_config()
    console = Console(file=StringIO(), width=120, force_terminal=True)
    params = {"prompts.depth": 2, "optimizer.lr": 1e-3}
    trial = TrialInfo(
        number=0, params=params, train=apply(config.train, params), proposed_at=STARTED
    )
    progress = Progress(console)
    progress.opened(Study(config, new_record(LocalStore(tmp_path))))
    progress.started(trial)
    progress.epoch_ended(0, history_of(0.25)[0])
    shown = text_of(progress.render())
    progress.closed()
    assert "trial 0  epoch 1/3  val/top1 0.250  4 s left" in shown
    assert "depth: 0/3 trials finished" in shown
