"""Training runs on real mp4 files: exact resumption, workers, micro-batches, checkpoints,
prediction.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

import vitaclip
from testing.motions import damaged_copy
from vitaclip import evaluation, optimizer, train
from vitaclip.__main__ import main
from vitaclip.checkpoint import adopt_checkpoint, drop_optimizer, load_model, load_optimizer
from vitaclip.checkpoint_info import read_history, read_info
from vitaclip.config import (
    BackboneConfig,
    EvalConfig,
    MethodConfig,
    OptimizerConfig,
    TrainConfig,
)
from vitaclip.distributed import mixed_precision
from vitaclip.errors import CheckpointError, InputError, NonFiniteLossError
from vitaclip.evaluation import evaluate_clip
from vitaclip.methods.build import build_model
from vitaclip.methods.video_model import VideoModel
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.optimizer import build_optimizer, learning_rate
from vitaclip.prediction import VideoPrediction, predict
from vitaclip.train import EpochEnd, TrainingInterruptedError, fit


def config_of(backbone: BackboneConfig, dataset: str, **changes: Any) -> TrainConfig:
    content = {
        "backbone": backbone.model_dump(),
        "prompts": {"num_global": 2},
        "text": {"num_context": 2},
        "data": {
            "dataset": dataset,
            "num_frames": 4,
            "stride": 2,
            "augment": {"rand_augment": "m3-n1"},
        },
        "optimizer": {"lr": 1e-2},
        "epochs": 3,
        "batch_size": 8,
        "num_threads": 1,
    }
    return TrainConfig.model_validate(content | changes)


@pytest.fixture
def config(small_backbone: BackboneConfig, motion_dataset: str) -> TrainConfig:
    return config_of(small_backbone, motion_dataset)


class Saver:
    """Keeps a checkpoint of every epoch."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, end: EpochEnd) -> None:
        end.save(self.root / str(end.epoch))


def saving_to(folder: Path) -> Callable[[EpochEnd], None]:
    """Keeps a checkpoint of the last epoch."""
    return lambda end: end.save(folder)


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in epoch.items() if not name.startswith("time/")}
        for epoch in history
    ]


def assert_same_files(found: Path, wanted: Path) -> None:
    ours, theirs = read_info(found).tensors, read_info(wanted).tensors
    assert ours.keys() == theirs.keys() == {"learned", "optimizer"}
    for kind in ours:
        assert (found / ours[kind].name).read_bytes() == (wanted / theirs[kind].name).read_bytes()


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path / "whole"))
    resumed = fit(
        config, resume_from=tmp_path / "whole" / "1", on_epoch_end=Saver(tmp_path / "resumed")
    )
    assert without_times(list(resumed.history)) == without_times(list(whole.history))
    assert [epoch["epoch"] for epoch in whole.history] == [1, 2, 3]
    assert_same_files(tmp_path / "resumed" / "3", tmp_path / "whole" / "3")
    assert read_history(tmp_path / "whole" / "3") == list(whole.history)
    curve = read_info(tmp_path / "whole" / "3").progress.curve
    assert read_info(tmp_path / "resumed" / "3").progress.curve == curve
    assert [(point.epoch, point.step) for point in curve] == [
        ((n + 2) // 3, n) for n in range(1, 10)
    ]
    for epoch, points in zip(whole.history, (curve[:3], curve[3:6], curve[6:]), strict=True):
        assert epoch["train/loss"] == sum(point.loss for point in points) / 3
        assert epoch["lr"] == points[-1].lr


def test_the_curve_of_a_long_epoch_is_thinned_and_old_checkpoints_have_none(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitaclip.train._CURVE_POINTS", 2)
    fit(config, on_epoch_end=Saver(tmp_path))
    assert [point.step for point in read_info(tmp_path / "3").progress.curve] == [2, 3, 5, 6, 8, 9]
    info = json.loads((tmp_path / "2" / "checkpoint.json").read_text())
    del info["progress"]["curve"]
    (tmp_path / "2" / "checkpoint.json").write_text(json.dumps(info))
    fit(config, resume_from=tmp_path / "2", on_epoch_end=Saver(tmp_path))
    assert [point.step for point in read_info(tmp_path / "3").progress.curve] == [8, 9]


def test_a_run_stopped_after_every_step_equals_the_uninterrupted_one_bit_for_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path / "whole"))
    checkpoint: Path | None = None
    for number in range(9):
        with pytest.raises(TrainingInterruptedError) as stop:
            fit(config, resume_from=checkpoint, should_stop=lambda: True)
        progress = stop.value.progress
        assert (progress.epoch, progress.step) == (number // 3, number % 3 + 1)
        assert progress.elapsed_s > 0
        checkpoint = tmp_path / f"stop_{number}"
        stop.value.save(checkpoint)
    pieces = fit(config, resume_from=checkpoint, on_epoch_end=Saver(tmp_path / "pieces"))
    assert without_times(list(pieces.history)) == without_times(list(whole.history))
    assert_same_files(tmp_path / "pieces" / "3", tmp_path / "whole" / "3")


def test_the_metrics_of_an_epoch_are_those_that_a_config_promises(config: TrainConfig) -> None:
    for epochs in (0, 1):
        changed = config.model_copy(update={"epochs": epochs})
        assert {name for epoch in fit(changed).history for name in epoch} == set(changed.metrics)


def test_the_seed_decides(config: TrainConfig) -> None:
    first, again, other = (
        fit(config.model_copy(update={"seed": seed})).history for seed in (0, 0, 1)
    )
    assert without_times(list(first)) == without_times(list(again))
    assert without_times(list(first)) != without_times(list(other))


def test_micro_batches_are_exact(config: TrainConfig) -> None:
    whole = fit(config).history
    split = fit(config.model_copy(update={"micro_batch_size": 3})).history
    for at_once, in_parts in zip(whole, split, strict=True):
        assert at_once["train/loss"] == pytest.approx(in_parts["train/loss"], rel=1e-4)


@pytest.fixture
def damaged_dataset(motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same with 3 of 24 training clips and 1 of 8 validation clips broken: an eighth of
    each.
    """
    damaged_copy(motion_dataset, tmp_path / "data")
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(tmp_path / "data"))
    return motion_dataset


def with_limit(config: TrainConfig, max_broken: float) -> TrainConfig:
    return config.model_copy(
        update={"data": config.data.model_copy(update={"max_broken": max_broken})}
    )


def test_broken_clips_are_counted_once_however_often_the_epoch_is_interrupted(
    config: TrainConfig, damaged_dataset: str, tmp_path: Path
) -> None:
    config = with_limit(config, 1 / 8)
    whole = fit(config).history
    checkpoint: Path | None = None
    for number in range(3):
        with pytest.raises(TrainingInterruptedError) as stop:
            fit(config, resume_from=checkpoint, should_stop=lambda: True)
        checkpoint = tmp_path / f"stop_{number}"
        stop.value.save(checkpoint)
    pieces = fit(config, resume_from=checkpoint).history
    assert (
        [epoch["data/broken"] for epoch in pieces]
        == [epoch["data/broken"] for epoch in whole]
        == [3, 3, 3]
    )
    assert [epoch["val/broken"] for epoch in pieces] == [1, 1, 1]


def test_zero_epochs_validate_the_untrained_model(config: TrainConfig, tmp_path: Path) -> None:
    frozen = config.model_copy(update={"epochs": 0, "method": MethodConfig(name="frozen_clip")})
    result = fit(frozen, on_epoch_end=Saver(tmp_path))
    clip = evaluate_clip(
        config.backbone, dataset="motions", split="val", data=frozen.data, views=EvalConfig()
    )
    assert len(result.history) == 1
    assert result.history[0]["val/top1"] == clip.top1
    assert result.history[0]["val/loss"] == pytest.approx(clip.loss, rel=1e-6)
    assert load_model(tmp_path / "0")[0].class_names == result.model.class_names


def test_a_method_that_trains_nothing_takes_no_epochs(config: TrainConfig) -> None:
    with pytest.raises(InputError, match="frozen_clip trains nothing; allowed is 0"):
        fit(config.model_copy(update={"method": MethodConfig(name="frozen_clip")}))


def state_of(model: VideoModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.learned_state().items()}


@pytest.mark.parametrize(
    "epochs", [3, 2, 0], ids=["all are done", "more are done", "none are wanted"]
)
def test_a_finished_training_taken_as_a_start_is_validated_and_not_trained_on(
    config: TrainConfig, tmp_path: Path, epochs: int
) -> None:
    parent = fit(config, on_epoch_end=Saver(tmp_path))
    child = config.model_copy(
        update={"epochs": epochs, "optimizer": config.optimizer.model_copy(update={"lr": 0.5})}
    )
    start = tmp_path / "3"
    adopt_checkpoint(start, child)
    found = fit(child, resume_from=start)
    (metrics,) = found.history
    assert metrics["epoch"] == 3
    assert metrics["val/loss"] == parent.history[-1]["val/loss"]
    assert not metrics.keys() & {"lr", "train/loss", "data/broken", "time/clips_per_s"}
    wanted = state_of(parent.model)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in state_of(found.model).items())


def test_a_parent_with_epochs_left_to_do_trains_these_and_no_more(
    config: TrainConfig, tmp_path: Path
) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path))
    adopt_checkpoint(tmp_path / "2", config)
    found = fit(config, resume_from=tmp_path / "2")
    assert without_times(list(found.history)) == without_times(list(whole.history[2:]))


def test_resuming_a_finished_training_does_nothing(config: TrainConfig, tmp_path: Path) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path))
    ends: list[EpochEnd] = []
    assert (
        fit(config, resume_from=tmp_path / "3", on_epoch_end=ends.append).history == whole.history
    )
    assert ends == []


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("warmup_steps", [0, 3, 10, 25])
def test_the_learning_rate_stays_where_its_schedule_ended(schedule: str, warmup_steps: int) -> None:
    config = OptimizerConfig.model_validate(
        {"lr": 0.1, "lr_schedule": schedule, "warmup_steps": warmup_steps}
    )
    rates = [learning_rate(config, step, 10) for step in range(60)]
    risen = rates[: max(1, warmup_steps)]
    assert risen == sorted(risen)
    after = rates[max(1, warmup_steps) - 1 :]
    assert after == sorted(after, reverse=True)
    assert after[-1] == (0.1 if schedule == "constant" else 0.0)


def test_a_checkpoint_scores_as_it_did_in_training(config: TrainConfig, tmp_path: Path) -> None:
    fit(config, on_epoch_end=Saver(tmp_path))
    for folder in (tmp_path / "1", tmp_path / "3"):
        score = vitaclip.evaluate(folder, dataset="motions", split="val")
        assert score.top1 == read_history(folder)[-1]["val/top1"]
        assert score.num_clips == 8
        assert score.confusion.sum() == 8
        assert score.confusion.trace() / 8 == score.top1
    views = EvalConfig(num_temporal_views=2, num_spatial_views=3, batch_size=3)
    zero_shot = vitaclip.evaluate(
        tmp_path / "3", dataset="motions", split="val", mode="zero_shot", views=views
    )
    # four classes are all in the top 5
    assert 0 <= zero_shot.top1 <= zero_shot.top5 == 1


def test_non_finite_loss_ends_the_run(config: TrainConfig) -> None:
    hot = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"lr": 1e30}), "epochs": 30}
    )
    with pytest.raises(NonFiniteLossError, match="lower optimizer.lr"):
        fit(hot)


def test_weights_that_the_last_step_ruined_are_no_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of that step was finite: it was taken before the step."""
    saved: list[int] = []
    apply = optimizer.apply_gradients

    def ruin(parameters: list[torch.nn.Parameter], *args: Any, **options: Any) -> None:
        apply(parameters, *args, **options)
        if len(steps) == 5:
            parameters[0].data[...] = torch.inf
        steps.append(1)

    steps: list[int] = []
    monkeypatch.setattr(train, "apply_gradients", ruin)
    with pytest.raises(NonFiniteLossError, match="step 5: it left trained weights that are NaN"):
        fit(config, on_epoch_end=lambda end: saved.append(end.epoch))
    assert saved == [1]
    steps.clear()
    with pytest.raises(NonFiniteLossError, match="step 5: it left"):
        fit(config, should_stop=lambda: len(steps) == 6)


@pytest.fixture
def reading_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of a step are read when the next one is launched, as on an accelerator."""
    monkeypatch.setattr(train._Run, "num_ahead", 1)


def test_steps_that_are_read_late_are_the_same(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path / "whole"))
    monkeypatch.setattr(train._Run, "num_ahead", 1)
    late = fit(config, on_epoch_end=Saver(tmp_path / "late"))
    assert without_times(list(late.history)) == without_times(list(whole.history))
    assert_same_files(tmp_path / "late" / "3", tmp_path / "whole" / "3")
    curves = [read_info(tmp_path / name / "3").progress.curve for name in ("late", "whole")]
    assert curves[0] == curves[1]


@pytest.mark.usefixtures("reading_late")
def test_a_stop_that_is_read_late_loses_no_step(config: TrainConfig, tmp_path: Path) -> None:
    whole = fit(config, on_epoch_end=Saver(tmp_path / "whole"))
    checkpoint: Path | None = None
    stops: list[tuple[int, int]] = []
    while len(stops) < 9:
        try:
            fit(
                config,
                resume_from=checkpoint,
                should_stop=lambda: True,
                on_epoch_end=Saver(tmp_path / "stopped"),
            )
            break
        except TrainingInterruptedError as stop:
            stops.append((stop.progress.epoch, stop.progress.step))
            checkpoint = tmp_path / f"stop{len(stops)}"
            stop.save(checkpoint)
    # The stop is heard of one step later: two steps are done each time, or the epoch's last one.
    assert stops == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3)]
    resumed = fit(config, resume_from=checkpoint, on_epoch_end=Saver(tmp_path / "stopped"))
    assert without_times(list(resumed.history)) == without_times(list(whole.history))
    assert_same_files(tmp_path / "stopped" / "3", tmp_path / "whole" / "3")


@pytest.mark.usefixtures("reading_late")
def test_a_loss_that_is_read_late_ends_the_run_before_its_checkpoint(config: TrainConfig) -> None:
    saved: list[int] = []
    hot = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"lr": 1e30}), "epochs": 30}
    )
    with pytest.raises(NonFiniteLossError, match="lower optimizer.lr"):
        fit(hot, on_epoch_end=lambda end: saved.append(end.epoch))
    assert not saved


def test_the_time_of_an_epoch_is_that_of_its_training(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    score, launch = evaluation.score_classifiers, train._launch_step

    def validated(*args: Any) -> Any:
        clock[0] += 100
        return score(*args)

    def launched(*args: Any) -> Any:
        clock[0] += 2
        return launch(*args)

    monkeypatch.setattr(train, "score_classifiers", validated)
    monkeypatch.setattr(train, "_launch_step", launched)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for epoch in fit(config).history:
        assert epoch["time/epoch_s"] == 6
        assert epoch["time/validation_s"] == 100
        assert epoch["time/clips_per_s"] == 24 / 6


def test_a_save_that_is_cut_off_leaves_the_checkpoint_before_it(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment: each write to the folder is the last one in turn."""
    fit(config, on_epoch_end=Saver(tmp_path))
    first, second = load_model(tmp_path / "1")[0], load_model(tmp_path / "2")[0]
    steps = ("_write_tensors", "write_info", "_delete_others")
    for cut in steps:
        folder = tmp_path / f"cut_{cut}"
        shutil.copytree(tmp_path / "1", folder)
        with monkeypatch.context() as patch:
            patch.setattr(f"vitaclip.checkpoint.{cut}", killed)
            with pytest.raises(KeyboardInterrupt):
                fit(
                    config,
                    resume_from=tmp_path / "1",
                    on_epoch_end=saving_to(folder),
                )
        wanted = second if cut == "_delete_others" else first
        found = load_model(folder)[0].learned_state()
        assert all(
            torch.equal(found[name], tensor) for name, tensor in wanted.learned_state().items()
        )


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_tensors_of_another_checkpoint_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    fit(config.model_copy(update={"epochs": 2}), on_epoch_end=Saver(tmp_path))
    ours, others = (read_info(tmp_path / epoch).tensors["learned"].name for epoch in ("1", "2"))
    (tmp_path / "1" / ours).write_bytes((tmp_path / "2" / others).read_bytes())
    with pytest.raises(CheckpointError, match=f"{ours}.*do not belong to this checkpoint"):
        load_model(tmp_path / "1")
    (tmp_path / "1" / ours).unlink()
    with pytest.raises(CheckpointError, match=f"{ours}: cannot be read"):
        load_model(tmp_path / "1")


def test_a_checkpoint_holds_no_tensors_of_those_it_replaced(
    config: TrainConfig, tmp_path: Path
) -> None:
    fit(config, on_epoch_end=lambda end: end.save(tmp_path) if end.epoch < 3 else None)
    files = {file.name for file in read_info(tmp_path).tensors.values()}
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.json", *files}
    drop_optimizer(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    load_model(tmp_path)
    with pytest.raises(CheckpointError, match="names no optimizer tensors"):
        fit(config, resume_from=tmp_path)


def test_optimizer_states_of_other_shapes_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    fit(config.model_copy(update={"epochs": 1}), on_epoch_end=Saver(tmp_path))
    info = read_info(tmp_path / "1")
    file = info.tensors["optimizer"]
    tensors = load_file(tmp_path / "1" / file.name)
    name = next(name for name, tensor in tensors.items() if tensor.ndim)
    content = save(tensors | {name: torch.zeros(3, 5, 7)})
    (tmp_path / "1" / file.name).write_bytes(content)
    text = info.model_dump_json().replace(file.sha256, hashlib.sha256(content).hexdigest())
    (tmp_path / "1" / "checkpoint.json").write_text(text)
    model = build_model(config, info.class_names)
    with pytest.raises(CheckpointError, match="in other shapes"):
        load_optimizer(model, build_optimizer(model, config.optimizer), tmp_path / "1")


def test_checkpoints_are_refused_when_they_do_not_belong(
    config: TrainConfig, tmp_path: Path
) -> None:
    fit(config.model_copy(update={"epochs": 1}), on_epoch_end=Saver(tmp_path))
    folder = tmp_path / "1"
    with pytest.raises(CheckpointError, match="written by another config"):
        fit(config, resume_from=folder)
    found = read_info(folder).backbone_sha256
    info = (folder / "checkpoint.json").read_text().replace(found, "0" * 64)
    (folder / "checkpoint.json").write_text(info)
    with pytest.raises(CheckpointError, match=f"(?s){'0' * 64}.*{found}"):
        load_model(folder)
    (folder / "checkpoint.json").write_text(
        info.replace('"schema_version": 1', '"schema_version": 9')
    )
    with pytest.raises(CheckpointError, match="found schema version 9, this version reads 1"):
        load_model(folder)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"no checkpoint\.json"):
        load_model(folder)


def test_predict_ones_own_videos(
    config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(config.model_copy(update={"epochs": 1}), on_epoch_end=Saver(tmp_path))
    root = Path(os.environ["VITACLIP_DATA_MOTIONS"])
    videos = [str(root / "val_1.mp4"), str(root / "val_0.mp4")]
    assert (
        main(
            ["predict", str(tmp_path / "1"), *videos, "--classes", "cat, dog,moving left", "--json"]
        )
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert [entry["video"] for entry in answer] == videos
    assert {"cat", "dog", "moving left"} == set(answer[0]["classes"])
    assert sum(answer[0]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert main(["predict", str(tmp_path / "1"), *videos]) == 0
    assert "moving up" in capsys.readouterr().out
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert main(["predict", str(tmp_path / "1"), str(tmp_path / "broken.mp4")]) == 1
    assert "broken.mp4" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "1"), "http://127.0.0.1:9/film.mp4"]) == 1
    assert "names the protocol 'http'; only local files are decoded" in capsys.readouterr().err
    mixed = [videos[0], str(tmp_path / "broken.mp4"), str(tmp_path / "none.mp4"), videos[1]]
    assert main(["predict", str(tmp_path / "1"), *mixed, "--json"]) == 1
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert [entry["video"] for entry in answer] == mixed
    assert [len(entry["classes"]) for entry in answer] == [4, 0, 0, 4]
    assert "none.mp4" in answer[2]["error"]
    assert "2 of 4 videos cannot be read" in told.err
    alone = predict(tmp_path / "1", [Path(videos[0])])[0]
    # Not equal to the last bit: matrix products of another size may round otherwise.
    assert alone.probabilities == pytest.approx(answer[0]["probabilities"], abs=1e-6)


def test_predict_reads_names_as_data_sets_do(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, motion_dataset: str
) -> None:
    fit(config.model_copy(update={"epochs": 1}), on_epoch_end=Saver(tmp_path))
    video = Path(os.environ["VITACLIP_DATA_MOTIONS"]) / "val_1.mp4"

    def answer(*names: str) -> VideoPrediction:
        return predict(tmp_path / "1", [video], names)[0]

    plain = answer("apply eye makeup", "folding something", "brush hair")
    assert answer("ApplyEyeMakeup", "Folding [something]", "brush_hair") == plain
    assert not plain.learned_context
    assert not caplog.records
    trained = answer("moving left", "moving right")
    assert answer("Moving_Left", "movingRight") == trained
    assert trained.learned_context
    assert not answer("moving left", "brush hair").learned_context
    assert "1 of 2 class names were trained (moving left)" in caplog.text
    with pytest.raises(InputError, match="name 2: class 'Moving_left' stands already in name 1"):
        answer("moving left", "Moving_left")


def test_out_of_memory_halves_the_micro_batches(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(config).history
    encode_video = VitaCLIP.encode_video

    def hungry(limit: int) -> Callable[[VitaCLIP, Tensor], Tensor]:
        def encode(model: VitaCLIP, video: Tensor) -> Tensor:
            if len(video) > limit and torch.is_grad_enabled():
                torch.empty(2**50)  # the CPU allocator's own error
            return encode_video(model, video)

        return encode

    monkeypatch.setattr(VitaCLIP, "encode_video", hungry(limit=2))
    halved = fit(config, on_epoch_end=Saver(tmp_path)).history
    assert {epoch["micro_batch_size"] for epoch in halved} == {2}
    for ours, theirs in zip(halved, whole, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)
    resumed = fit(config, resume_from=tmp_path / "1").history
    assert without_times(list(resumed)) == without_times(list(halved))
    monkeypatch.setattr(VitaCLIP, "encode_video", hungry(limit=0))
    with pytest.raises(InputError, match="memory runs out with one clip at a time"):
        fit(config)


def test_metrics_say_how_loading_went(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "empty"))
    first, *later = fit(config).history
    assert first["time/cache_hit_rate"] == 0
    assert [epoch["time/cache_hit_rate"] for epoch in later] == [1, 1]
    assert 0 < first["time/data_wait_s"] < first["time/epoch_s"]


@pytest.fixture
def dataset_with_splits(
    motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Splits of two shots, of other clips to validate on, and of half of the classes."""
    root = shutil.copytree(os.environ["VITACLIP_DATA_MOTIONS"], tmp_path / "splits")
    lines = {split: (root / f"{split}.csv").read_text().splitlines() for split in ("train", "val")}
    (root / "few_shot_2.csv").write_text("\n".join(lines["train"][:8]))
    (root / "other_val.csv").write_text("\n".join(lines["train"][8:12]))
    classes = (root / "classes.txt").read_text().splitlines()
    (root / "base_val_classes.txt").write_text("\n".join(classes[:2]))
    (root / "base_val.csv").write_text("\n".join([lines["val"][0], lines["val"][1]]))
    monkeypatch.setenv("VITACLIP_DATA_SPLITS", str(root))
    return "splits"


def test_the_config_names_the_splits_of_a_training(
    config: TrainConfig, dataset_with_splits: str, tmp_path: Path
) -> None:
    data = {"dataset": dataset_with_splits, "train_split": "few_shot_2", "val_split": "other_val"}
    chosen = config.data.model_copy(update=data)
    ends: list[EpochEnd] = []
    fit(config.model_copy(update={"data": chosen, "epochs": 2}), on_epoch_end=ends.append)
    ends[-1].save(tmp_path / "checkpoint")
    # one step of eight clips an epoch
    curve = read_info(tmp_path / "checkpoint").progress.curve
    assert [point.step for point in curve] == [1, 2]
    assert ends[-1].metrics["val/top1"] in (0, 0.25, 0.5, 0.75, 1)
    other = chosen.model_copy(update={"val_split": "base_val"})
    with pytest.raises(
        InputError, match=r"'few_shot_2' \(4 classes\) and 'base_val' \(2\) .*data.val_split"
    ):
        fit(config.model_copy(update={"data": other}))


def test_a_config_of_before_trains_on_the_usual_splits(config: TrainConfig) -> None:
    values = config.model_dump(mode="json")
    for name in ("train_split", "val_split"):
        del values["data"][name]
    assert TrainConfig.model_validate(values) == config
    assert config.data.splits == ("train", "val")


def test_bad_input_is_refused(config: TrainConfig) -> None:
    with pytest.raises(InputError, match=r"prompts.depth: found 5, allowed is at most 2"):
        fit(config.model_copy(update={"prompts": config.prompts.model_copy(update={"depth": 5})}))
    with pytest.raises(InputError, match="VITACLIP_DATA_NOWHERE is not set"):
        fit(
            config.model_copy(
                update={"data": config.data.model_copy(update={"dataset": "nowhere"})}
            )
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near_full_precision(
    config: TrainConfig, precision: str, tmp_path: Path
) -> None:
    mixed = config.model_copy(update={"precision": precision, "epochs": 4})
    history = fit(mixed, on_epoch_end=Saver(tmp_path)).history
    full = fit(config.model_copy(update={"epochs": 4})).history
    # fp16 skips its first steps while the loss scale finds its place, so only the end can be
    # compared
    assert history[-1]["train/loss"] == pytest.approx(full[-1]["train/loss"], rel=0.05)
    assert history[-1]["train/loss"] != full[-1]["train/loss"]
    resumed = fit(mixed, resume_from=tmp_path / "2").history
    assert without_times(list(resumed)) == without_times(list(history))


def test_mixed_precision_is_what_the_hardware_has(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = build_model(config.model_copy(update={"precision": "mixed"}), ["left", "right"])
    video = torch.randn(1, 3, config.data.num_frames, *mixed.clip.visual.image_size)
    for features, dtype in (({"bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda features=features: features)
        assert mixed.encode_video(video).dtype == dtype
    for has_bf16, dtype in ((True, torch.bfloat16), (False, torch.float16)):  # no GPU here to ask
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda has=has_bf16, **_: has)
        assert mixed_precision(torch.device("cuda")) == dtype
