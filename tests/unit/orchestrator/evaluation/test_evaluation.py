"""Benchmarks of real checkpoints on real mp4 files, and the statistics beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import vitaclip
from orchestrator import evaluate
from orchestrator.commands import evaluate as command
from orchestrator.config import Benchmark
from orchestrator.evaluation import benchmark as evaluation
from orchestrator.evaluation.benchmark import score_trials
from orchestrator.evaluation.pairing import paired_scores
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import STARTED, begin, best_checkpoint, finish, study_config
from vitaclip.config import EvalConfig, TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.errors import InputError
from vitaclip.evaluation import (
    EvalMode,
    described_classifier,
    evaluate_clip,
    supervised_classifier,
    zero_shot_classifier,
)
from vitaclip.train import EpochEnd, fit


@pytest.fixture(scope="module")
def trained(
    small_training: dict[str, Any], motion_dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> StudyRecord:
    """Trials trained for one epoch and for none, and one whose clips are drawn in another way."""
    root = tmp_path_factory.mktemp("study")
    train = small_training | {"prompts": {"num_global": 1}, "text": {"num_context": 1}}
    record = StudyRecord(LocalStore(root / "store"), "depth")
    record.create_or_check(study_config(train=train, benchmarks=[]), {})
    data = {"dataset": motion_dataset, "num_frames": 2, "sampling": "uniform"}
    variants: list[dict[str, object]] = [{"epochs": 1}, {"epochs": 0}, {"epochs": 0, "data": data}]
    for number, changes in enumerate(variants):
        config = TrainConfig.model_validate(train | changes)
        record.write_trial(TrialInfo(number=number, params={}, train=config, proposed_at=STARTED))

        attempt = begin(record, number)

        def publish(end: EpochEnd, number: int = number, attempt: int = attempt) -> None:
            end.save(root / str(number))
            publish_checkpoint(record, number, attempt, root / str(number), end.history)

        fit(config, on_epoch_end=publish)
    return record


@pytest.fixture
def record(trained: StudyRecord, tmp_path: Path) -> StudyRecord:
    """A copy without scores."""
    shutil.copytree(Path(trained.store.uri), tmp_path / "store")
    return StudyRecord(LocalStore(tmp_path / "store"), "depth")


def benchmark_on(dataset: str, mode: str = "zero_shot", split: object = "val") -> BenchmarkConfig:
    values = {"dataset": dataset, "split": split, "mode": mode}
    return TypeAdapter(Benchmark).validate_python(values)


@pytest.mark.parametrize("mode", ["zero_shot", "supervised"])
def test_scores_are_those_of_the_best_checkpoints(
    record: StudyRecord, motion_dataset: str, mode: EvalMode
) -> None:
    benchmark = benchmark_on(motion_dataset, mode)
    scores = score_trials(record, [0, 1], benchmark)
    folders = [Path(record.store.uri) / str(best_checkpoint(record, number)) for number in (0, 1)]
    wanted = [
        vitaclip.evaluate(folder, dataset=motion_dataset, split="val", mode=mode)
        for folder in folders
    ]
    prefix = f"{mode}/{motion_dataset}"
    for number, score in enumerate(wanted):
        assert scores[number].metrics[f"{prefix}/top1"] == score.top1
        assert scores[number].metrics[f"{prefix}/top5"] == score.top5
        assert scores[number].splits[0].per_class_top1 == score.per_class_top1
        assert scores[number].metrics[f"{prefix}/num_clips"] == 8


def test_the_frozen_clip_is_scored_beside_them(record: StudyRecord, motion_dataset: str) -> None:
    score_trials(record, [0], benchmark_on(motion_dataset, "supervised"))
    config = record.info.config.train
    wanted = evaluate_clip(
        config.backbone, dataset=motion_dataset, split="val", data=config.data, views=EvalConfig()
    )
    [score] = record.scores(Baseline.of(config)).read_all()
    assert score.metrics[f"supervised/{motion_dataset}/top1"] == wanted.top1


def test_each_way_of_drawing_clips_has_its_own_frozen_clip(
    record: StudyRecord, motion_dataset: str, tmp_path: Path
) -> None:
    shutil.copytree(record.store.uri, tmp_path / "other")
    other = StudyRecord(LocalStore(tmp_path / "other"), "depth")
    benchmark = benchmark_on(motion_dataset)
    score_trials(record, [0, 1, 2], benchmark)
    for number in (2, 1, 0):
        score_trials(other, [number], benchmark)
    four_frames, two_frames = (Baseline.of(record.trial(number).info.train) for number in (0, 2))
    for baseline, number in ((four_frames, 0), (two_frames, 2)):
        config = record.trial(number).info.train
        wanted = evaluate_clip(
            config.backbone,
            dataset=motion_dataset,
            split="val",
            data=config.data,
            views=EvalConfig(),
        )
        for scored in (record, other):
            [score] = scored.scores(baseline).read_all()
            assert score.splits[0].ranked == tuple(p.ranked for p in wanted.predictions)
            assert (score.baseline, score.checkpoint) == (baseline, None)
    assert four_frames.name == "frozen CLIP, ViT-test-small, 4 frames dense, stride 2"
    assert two_frames.name == "frozen CLIP, ViT-test-small, 2 frames uniform"


def test_frozen_clips_of_other_sizes_have_other_names_and_folders() -> None:
    train = {"data": {"num_frames": 2, "sampling": "uniform"}}
    sizes = [{}, {"backbone": {"image_size": 224}}, {"backbone": {"image_size": 336}}]
    clips = [Baseline.of(TrainConfig.model_validate(train | size)) for size in sizes]
    assert [clip.name for clip in clips] == [
        "frozen CLIP, ViT-B-16-quickgelu, 2 frames uniform",
        "frozen CLIP, ViT-B-16-quickgelu at 224 pixels, 2 frames uniform",
        "frozen CLIP, ViT-B-16-quickgelu at 336 pixels, 2 frames uniform",
    ]
    assert len({clip.key for clip in clips}) == 3


def test_scores_of_other_data_are_never_mixed(
    record: StudyRecord, tmp_path: Path, motion_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = benchmark_on(motion_dataset)
    score_trials(record, [0], benchmark)
    source = Path(load_dataset(motion_dataset, "val").clips[0].path).parent
    shutil.copytree(source, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(tmp_path / "data"))
    score_trials(record, [2], benchmark)  # a copy is the same data
    shutil.copy(tmp_path / "data/val_1.mp4", tmp_path / "data/val_0.mp4")
    with pytest.raises(
        InputError, match="other data of motions/val: its files have other sizes or content"
    ):
        score_trials(record, [0, 1], benchmark)
    assert record.scores(1).read_all() == []
    assert score_trials(record, [0], benchmark)  # what is there needs no data


def test_a_finished_score_is_never_computed_twice(
    record: StudyRecord, motion_dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = benchmark_on(motion_dataset)
    first = score_trials(record, [0], benchmark)
    passes: list[list[int | Baseline]] = []
    compute = evaluation._compute

    def noted(record: StudyRecord, missing: Sequence[int | Baseline], *more: Any) -> Any:
        passes.append(list(missing))
        return compute(record, missing, *more)

    monkeypatch.setattr(evaluation, "_compute", noted)
    both = score_trials(record, [0, 1], benchmark)
    assert passes == [[1]]
    assert both[0] == first[0]
    score_trials(record, [0, 1], benchmark)
    assert passes == [[1]]
    score_trials(
        record, [0], benchmark.model_copy(update={"views": EvalConfig(num_temporal_views=2)})
    )
    assert passes == [[1], [0, Baseline.of(record.trial(0).info.train)]]


def test_splits_are_averaged(record: StudyRecord, motion_dataset: str) -> None:
    metrics = score_trials(record, [0], benchmark_on(motion_dataset, split=["val", "train"]))[
        0
    ].metrics
    singles = [
        score_trials(record, [0], benchmark_on(motion_dataset, split=split))[0].metrics[
            f"zero_shot/{motion_dataset}/top1"
        ]
        for split in ("val", "train")
    ]
    assert metrics[f"zero_shot/{motion_dataset}/top1"] == pytest.approx(np.mean(singles))
    assert metrics[f"zero_shot/{motion_dataset}/top1_std"] == pytest.approx(np.std(singles, ddof=1))
    assert metrics[f"zero_shot/{motion_dataset}/num_clips"] == 32


def test_models_share_one_frozen_clip(record: StudyRecord) -> None:
    checkpoints = {number: str(best_checkpoint(record, number)) for number in (0, 1)}
    models = evaluation._load_all(record, checkpoints)
    first, second = (dict(models[number].model.clip.named_parameters()) for number in (0, 1))
    assert all(second[name] is weights for name, weights in first.items())


def test_templates_are_averaged(record: StudyRecord, motion_dataset: str) -> None:
    templates = ("a video of {}.", "{}, seen from afar")
    model = evaluation._load_all(record, {0: str(best_checkpoint(record, 0))})[0].model
    with torch.no_grad():
        rows = [model.encode_names([text])[0] for text in ("a video of up.", "up, seen from afar")]
        wanted = sum(row / row.norm() for row in rows) / 2
        found = zero_shot_classifier(model, ["down", "up"], templates).text_CE[1]
    assert torch.allclose(found, torch.as_tensor(wanted), atol=1e-6)
    benchmark = benchmark_on(motion_dataset).model_copy(update={"templates": templates})
    assert score_trials(record, [0], benchmark)[0].benchmark == benchmark


DESCRIPTIONS = {
    "moving left": ["A square goes west.", "It goes left.", "left"],
    "moving right": "A square goes east.",
    "moving up": ["A square climbs.", "up"],
    "moving down": "A square falls.",
}


def described_by(path: Path, dataset: str, mode: str = "zero_shot") -> BenchmarkConfig:
    values = {"dataset": dataset, "split": "val", "mode": mode, "descriptions": str(path)}
    return TypeAdapter(Benchmark).validate_python(values).pinned()


def test_the_sentences_of_a_class_are_averaged(record: StudyRecord) -> None:
    model = evaluation._load_all(record, {0: str(best_checkpoint(record, 0))})[0].model
    sentences = [("A square goes west.", "It goes left.", "left"), ("A square goes east.",)]
    with torch.no_grad():
        rows = [model.encode_names(found) for found in sentences]
        wanted = [(row / row.norm(dim=-1, keepdim=True)).mean(dim=0) for row in rows]
    found = described_classifier(model, sentences).text_CE
    assert torch.allclose(found, torch.stack(wanted), atol=1e-6)


@pytest.mark.parametrize("mode", ["zero_shot", "supervised"])
def test_descriptions_are_read_where_no_context_was_learned(
    record: StudyRecord, motion_dataset: str, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "described.json"
    path.write_text(json.dumps(DESCRIPTIONS))
    frozen = Baseline.of(record.trial(0).info.train)
    named, described = benchmark_on(motion_dataset, mode), described_by(path, motion_dataset, mode)
    ranked, of_clip = [], []
    for benchmark in (named, described):
        ranked.append(score_trials(record, [0], benchmark)[0].splits[0].ranked)
        baseline = record.scores(frozen).read(benchmark)
        assert baseline is not None
        of_clip.append(baseline.splits[0].ranked)
    assert (ranked[0] != ranked[1]) == (mode == "zero_shot")
    assert of_clip[0] != of_clip[1]


def test_scores_by_other_descriptions_are_not_taken_for_these(
    record: StudyRecord, motion_dataset: str, tmp_path: Path
) -> None:
    path = tmp_path / "described.json"
    path.write_text(json.dumps(DESCRIPTIONS))
    before = described_by(path, motion_dataset)
    old = score_trials(record, [0], before)[0]
    path.write_text(json.dumps(DESCRIPTIONS | {"moving up": "A square rises."}))
    with pytest.raises(InputError, match=r"described.json: has other content than .*zero_shot/"):
        score_trials(record, [1], before)
    assert record.scores(0).read(before) == old
    now = described_by(path, motion_dataset)
    assert record.scores(0).read(now) is None
    new = score_trials(record, [0], now)[0]
    assert paired_scores([old], [[new]]) == [[]]
    assert len(paired_scores([new], [[new]])[0]) == 1
    path.unlink()
    # what is on record needs no file
    assert score_trials(record, [0], now)[0] == new
    with pytest.raises(InputError, match="there is no such file of descriptions"):
        score_trials(record, [1], now)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"descriptions": "x.json", "templates": ["a {}"]}, "descriptions: found templates too"),
        ({"descriptions_sha256": "0" * 64}, "descriptions_sha256: found no descriptions"),
        ({"descriptions": "x.json", "descriptions_sha256": "12"}, "descriptions_sha256"),
    ],
)
def test_fields_of_descriptions_that_do_not_fit_are_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ZeroShot.model_validate({"dataset": "x", "split": "val", "mode": "zero_shot"} | values)


def test_the_command_takes_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "described.csv"
    path.write_text("name,description\nwave,A person waves.\n")
    named = command.NamedBenchmarks(["hmdb51"], (), "zero_shot", EvalConfig(), (), path)
    [benchmark] = command._benchmarks(named)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (benchmark.descriptions, benchmark.descriptions_sha256) == (str(path), sha256)
    assert benchmark.splits == ("test_1", "test_2", "test_3")
    with pytest.raises(InputError, match="--descriptions: found --templates too"):
        command._benchmarks(replace(named, templates=["a {}"]))


@pytest.mark.parametrize(("name", "number"), [("kinetics700", 28), ("ucf101", 48)])
def test_clips_own_templates_go_by_their_data_set(name: str, number: int) -> None:
    benchmark = ZeroShot.model_validate(
        {"dataset": "ucf101", "split": "test_1", "mode": "zero_shot", "templates": name}
    )
    assert benchmark.templates == name
    found = benchmark.class_texts("test_1").templates
    assert len(found) == len(set(found)) == number
    assert all(template.count("{}") == 1 for template in found)
    assert "a video of a person doing {}." in found


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ()),
        (["ucf101"], "ucf101"),
        (["a {}.", "the {}."], ("a {}.", "the {}.")),
        (["{}"], ("{}",)),
    ],
)
def test_the_command_takes_templates(words: list[str], wanted: object) -> None:
    assert command._templates(words) == wanted


@pytest.mark.parametrize("words", [["ucf"], ["a {}.", "no braces"], ["ucf101", "a {}."]])
def test_the_command_refuses_other_templates(words: list[str]) -> None:
    with pytest.raises(InputError, match="kinetics700 or ucf101"):
        command._templates(words)


@pytest.mark.parametrize(
    "template",
    [
        "{0.__class__} {}",
        "{.__class__}",
        "{0}",
        "{:>1000000000}",
        "{!r} {}",
        "{{}} {}}",
        "{} {name}",
        "{[0]}",
        "}{",
    ],
)
def test_a_template_can_ask_for_nothing_but_the_name(template: str) -> None:
    with pytest.raises(InputError, match="no other brace"):
        command._templates([template])
    with pytest.raises(ValidationError, match="no other brace"):
        ZeroShot.model_validate(
            {"dataset": "x", "split": "val", "mode": "zero_shot", "templates": ["a {}", template]}
        )


def test_every_way_to_read_a_name_cleans_it(record: StudyRecord) -> None:
    model = evaluation._load_all(record, {0: str(best_checkpoint(record, 0))})[0].model
    for encode in (
        lambda *names: zero_shot_classifier(model, names).text_CE,
        lambda *names: zero_shot_classifier(model, names, ["a {}"]).text_CE,
        lambda *names: supervised_classifier(model, names).text_CE,
    ):
        plain = encode("moving left", "moving right", "moving up", "moving down")
        assert torch.equal(
            encode("moving_left", "movingRight", "Moving [up]", " MOVING  down"), plain
        )


def test_classes_in_another_order_are_refused(record: StudyRecord) -> None:
    model = evaluation._load_all(record, {0: str(best_checkpoint(record, 0))})[0].model
    turned = tuple(reversed(model.class_names))
    with pytest.raises(InputError, match=f"first: '{turned[0]}' against '{turned[-1]}'"):
        supervised_classifier(model, turned)


def test_braces_in_a_class_name_are_left_alone(record: StudyRecord) -> None:
    model = evaluation._load_all(record, {0: str(best_checkpoint(record, 0))})[0].model
    with torch.no_grad():
        row = model.encode_names(["a {0.x}{} and {0.x}{}"])[0]
    found = zero_shot_classifier(model, ["{0.x}{}"], ["a {} and {}"]).text_CE[0]
    assert torch.allclose(found, row / row.norm(), atol=1e-6)


@pytest.mark.parametrize("target", ["depth", "depth/0", "folder"])
def test_the_command_scores_what_exists(
    record: StudyRecord,
    motion_dataset: str,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VITACLIP_STORE", record.store.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(
        StudyRecord,
        "results",
        lambda self: [finish(self, self.trial(0).info, "complete", write=False)],
    )
    if target == "folder":
        target = str(Path(record.store.uri) / str(best_checkpoint(record, 0)))
    assert evaluate.main([target, "--on", motion_dataset]) == 2
    assert "name its --split" in capsys.readouterr().err
    arguments = [target, "--on", motion_dataset, "--split", "val", "--json"]
    assert evaluate.main(arguments) == 0
    out = capsys.readouterr().out
    rows = json.loads(out[out.index("{\n") :])
    name = "depth/0" if target == "depth" else target
    wanted = score_trials(record, [0], benchmark_on(motion_dataset))[0].metrics
    assert rows[name] == wanted
    assert any(name.startswith("frozen CLIP") for name in rows) == target.startswith("depth")


def test_a_trial_without_checkpoint_cannot_be_scored(
    record: StudyRecord, motion_dataset: str
) -> None:
    record.write_trial(record.trial(0).info.model_copy(update={"number": 7}))
    with pytest.raises(InputError, match="trial 7: has no checkpoint"):
        score_trials(record, [7], benchmark_on(motion_dataset))
