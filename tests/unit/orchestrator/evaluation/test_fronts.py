"""Blends of trials with the frozen CLIP: scored in the pass of the benchmark, chosen by the
development classes, shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.commands import show
from orchestrator.config import Benchmark
from orchestrator.evaluation.benchmark import score_trials
from orchestrator.evaluation.fronts import front_of
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.reporting import blends
from orchestrator.reporting.blends import blend_curves, chosen_blends, front_pairs, named_trials
from orchestrator.reporting.page import page
from orchestrator.reporting.study_data import read_study
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.score import Baseline, BenchmarkScore, BlendScore
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.pretended_device import pretended_device
from testing.study_fixtures import STARTED, begin, finish, study_config
from vitaclip import evaluation
from vitaclip.config import TrainConfig
from vitaclip.data import loader
from vitaclip.train import EpochEnd, fit

ALPHAS = (0.0, 0.5, 1.0)


def benchmark_of(mode: str, dataset: str = "motions", split: str = "val") -> BenchmarkConfig:
    values = {"dataset": dataset, "split": split, "mode": mode, "alphas": list(ALPHAS)}
    return TypeAdapter(Benchmark).validate_python(values)


POINT = {"prompts.depth": 1, "optimizer.lr": 3e-3}
BENCHMARKS = [benchmark_of(mode) for mode in ("supervised", "zero_shot", "development")]


@pytest.fixture(scope="module")
def record(small_training: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """Two trials, of prompts and of a fine-tuned CLIP."""
    root = tmp_path_factory.mktemp("study")
    record = StudyRecord(LocalStore(root / "store"), "depth")
    config = study_config(train=small_training, benchmarks=[])
    record.create_or_check(config.model_copy(update={"benchmarks": tuple(BENCHMARKS)}), {})
    own = {"epochs": 1, "optimizer": {"lr": 3e-3}}
    for number, method in enumerate(("vita_clip", "full_finetune")):
        train = TrainConfig.model_validate(small_training | own | {"method": method})
        record.write_trial(TrialInfo(number=number, params=POINT, train=train, proposed_at=STARTED))
        attempt = begin(record, number)

        def publish(end: EpochEnd, number: int = number, attempt: int = attempt) -> None:
            end.save(root / str(number))
            publish_checkpoint(record, number, attempt, root / str(number), end.history)

        fit(train, on_epoch_end=publish)
    return record


def test_blends_are_scored_in_the_pass_of_their_trial(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []
    eval_batches = loader.eval_batches

    def counted(manifest: Any, *args: Any, **options: Any) -> Any:
        passes.append(manifest.name)
        return eval_batches(manifest, *args, **options)

    monkeypatch.setattr(evaluation, "eval_batches", counted)
    for benchmark in BENCHMARKS:
        scores = score_trials(record, [0, 1], benchmark)
        top1 = f"{benchmark.name}/top1"
        baseline = Baseline.of(record.trial(0).info.train)
        clip = record.scores(baseline).read(benchmark)
        assert clip is not None
        assert clip.blends == ()
        for score in scores.values():
            assert tuple(blend.alpha for blend in score.blends) == ALPHAS
            assert score.blends[-1].metrics[top1] == score.metrics[top1]
            assert score.blends[0].metrics.keys() == score.metrics.keys()
        assert scores[0].blends[0].metrics[top1] == clip.metrics[top1]
    assert len(passes) == len(BENCHMARKS)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
@pytest.mark.parametrize("mode", ["supervised", "zero_shot"])
def test_trials_and_blends_are_scored_on_the_device(
    mode: str, record: StudyRecord, tmp_path: Path
) -> None:
    shutil.copytree(record.store.uri, tmp_path / "store")
    elsewhere = StudyRecord(LocalStore(tmp_path / "store"), "depth")
    benchmark = benchmark_of(mode, split="train")
    expected = score_trials(record, [0, 1], benchmark)
    with pretended_device() as traffic:
        found = score_trials(elsewhere, [0, 1], benchmark)
    assert any("evaluation.py" in place for place in traffic.to_device)
    for number, score in expected.items():
        assert found[number].metrics == score.metrics
        assert found[number].blends == score.blends


def test_a_trials_front_is_shown_and_drawn(
    record: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for benchmark in BENCHMARKS:
        score_trials(record, [0, 1], benchmark)
    for number in (0, 1):
        finish(record, record.trial(number).info, "complete", 0.5)
    monkeypatch.setenv("VITACLIP_STORE", str(record.store.uri))
    show.show_trial("depth/0", as_json=False)
    shown = capsys.readouterr().out
    assert "blends with the frozen CLIP" in shown
    assert "(chosen)" in shown
    data = read_study(record)
    assert front_pairs(data) == [("supervised/motions", "zero_shot/motions")]
    lines = blend_curves(data, *front_pairs(data)[0]).data
    assert [line.name for line in lines] == ["trial 0", "trial 1"]
    for line in lines:
        assert len(line.x) == len(ALPHAS)
        assert list(line.marker.symbol).count("star") == 1
    html = page(data)
    header, *rows = chosen_blends(data)
    assert header[:2] == ["trial", "training's share"]
    for number, cells in enumerate(rows):
        front = front_of(record.scores(number).read_all())
        assert front is not None
        assert cells[:2] == [str(number), f"{front.chosen:g}"]
        assert all(cell in html for cell in cells)


def test_of_many_trials_the_best_of_each_choice_are_named(
    record: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_study(record)
    choices = {"method.name": {"type": "categorical", "choices": ["vita_clip", "lora"]}}
    config = study_config(search_space=choices)
    results = [
        TrialResult(
            number=number,
            state="complete",
            params={"method.name": name},
            proposed_at=STARTED,
            finished_at=STARTED,
        )
        for number, name in ((3, "lora"), (1, "lora"), (0, "vita_clip"))
    ]
    info = data.info.model_copy(update={"config": config})
    many = replace(data, info=info, results=tuple(results))
    monkeypatch.setattr(blends, "fronts", lambda _: dict.fromkeys((0, 1, 3)))
    assert named_trials(many) == {3: "trial 3", 1: "trial 1", 0: "trial 0"}
    monkeypatch.setattr(blends, "MOST_NAMES", 2)
    assert named_trials(many) == {3: "lora, trial 3", 0: "vita_clip, trial 0"}


def score_of(mode: str, dataset: str, top1: Mapping[float, float]) -> BenchmarkScore:
    benchmark = benchmark_of(mode, dataset)
    name = benchmark.name

    def metrics(value: float) -> dict[str, float]:
        interval = {"top1_ci95_low": value - 0.1, "top1_ci95_high": value + 0.1}
        return {f"{name}/{key}": found for key, found in {"top1": value, **interval}.items()}

    return BenchmarkScore(
        benchmark=benchmark,
        checkpoint="best",
        splits=(),
        metrics=metrics(top1[1.0]),
        blends=tuple(BlendScore(alpha=a, metrics=metrics(value)) for a, value in top1.items()),
        scored_at=datetime.now(UTC),
        duration_s=1.0,
    )


def test_the_development_classes_choose_and_nothing_else() -> None:
    zero_shot = score_of("zero_shot", "ucf101", {0.0: 0.9, 0.5: 0.8, 1.0: 0.7})
    front = front_of([zero_shot])
    assert front is not None
    assert front.chosen is None
    assert front.points[0.5]["zero_shot/ucf101"].top1 == 0.8
    assert front.points[0.5]["zero_shot/ucf101"].low == pytest.approx(0.7)
    first = score_of("development", "k400", {0.0: 0.5, 0.5: 0.7, 1.0: 0.6})
    second = score_of("development", "k600", {0.0: 0.5, 0.5: 0.5, 1.0: 0.6})
    for scores, wanted in (([first], 0.5), ([second], 1.0), ([first, second], 1.0)):
        front = front_of([zero_shot, *scores])
        assert front is not None
        assert front.chosen == wanted
    assert front_of([]) is None


@pytest.mark.parametrize("alphas", [[0.5, 0.5], [1.0, 0.0], [1.5], [-0.1]])
def test_shares_that_are_none_are_refused(alphas: list[float]) -> None:
    values = {"dataset": "motions", "split": "val", "mode": "zero_shot", "alphas": alphas}
    with pytest.raises(ValidationError, match="alphas"):
        TypeAdapter(Benchmark).validate_python(values)
