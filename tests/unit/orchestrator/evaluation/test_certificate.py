"""The certificate of a real checkpoint, on miniature replicas of published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator import certify, evaluate
from orchestrator.commands import certify as command
from orchestrator.evaluation.benchmark import PUBLISHED_BENCHMARKS, load_checkpoint, score_models
from orchestrator.evaluation.certificate import fitting_figures
from orchestrator.evaluation.published import WHOLE, PublishedFigure, read_published
from testing.motions import write_moving_square
from vitaclip.config import BackboneConfig, DataConfig, TrainConfig
from vitaclip.data.class_draws import zero_shot_classes
from vitaclip.data.formats import CLASS_LISTS
from vitaclip.data.manifest import read_class_list
from vitaclip.prediction import predict
from vitaclip.train import fit

HMDB51, KINETICS600 = "zero_shot/hmdb51", "zero_shot/kinetics600"


@pytest.fixture(scope="module")
def checkpoint(
    small_backbone: BackboneConfig, motion_dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp("certificate") / "checkpoint"
    return trained(small_backbone, motion_dataset, folder, epochs=1)


def trained(backbone: BackboneConfig, dataset: str, folder: Path, **changes: object) -> Path:
    config = TrainConfig.model_validate(
        {
            "backbone": backbone.model_dump(),
            "data": {"dataset": dataset, "num_frames": 4, "stride": 2, "max_broken": 0.4},
            "batch_size": 8,
            "num_threads": 1,
        }
        | changes
    )
    fit(config, on_epoch_end=lambda end: end.save(folder))
    return folder


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    for name in PUBLISHED_BENCHMARKS:
        monkeypatch.delenv(f"VITACLIP_DATA_{name.upper()}", raising=False)


@pytest.fixture
def hmdb51(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Its layout, with four videos in each test split; returns the accuracy of the checkpoint in
    percent, which is neither 0 nor 100.
    """
    root, rng = tmp_path / "hmdb51", np.random.default_rng(0)
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    names = read_class_list(CLASS_LISTS / "hmdb51.txt")
    [seen] = predict(checkpoint, [write_moving_square(tmp_path / "any.mp4", rng)], names)
    likely = next(name for name in names if name.replace("_", " ") == seen.classes[0])
    never = next(name for name in names if name.replace("_", " ") not in seen.classes)
    for name in (likely, never):
        paths = [write_moving_square(root / name / f"{name}_{i}.avi", rng) for i in range(2)]
        for n in (1, 2, 3):
            rows = "".join(f"{path.name} 2 \n" for path in paths)
            (lists / f"{name}_test_split{n}.txt").write_text(rows)
    monkeypatch.setenv("VITACLIP_DATA_HMDB51", str(root))
    splits = score_models({0: load_checkpoint(checkpoint)}, PUBLISHED_BENCHMARKS["hmdb51"])[0]
    percent = 100 * splits[0].top1
    assert 0 < percent < 100
    return percent


def figure(percent: float, **changes: object) -> PublishedFigure:
    """A figure of the checkpoint's own circumstances, as a row of the table would say it."""
    values = {
        "method": "Vita-CLIP",
        "benchmark": HMDB51,
        "metric": "top1",
        "percent": percent,
        "origin": "own",
        "source": "a test",
        "trained_on": "motions/train",
        "splits": "test_1 test_2 test_3",
        "backbone": "ViT-test-small/random",
        "frames": "4",
        "sampling": "dense 2",
        "image_size": 32,
        "views": "1x1",
        "texts": "names",
        "precision": "fp32",
    }
    return PublishedFigure.model_validate(values | changes)


@pytest.fixture
def run(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    return Run(checkpoint, monkeypatch, capsys)


class Run:
    """The command on a table with these rows only."""

    def __init__(
        self,
        checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.checkpoint, self.monkeypatch, self.capsys = checkpoint, monkeypatch, capsys

    def __call__(self, *figures: PublishedFigure, words: tuple[str, ...] = ()) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self.monkeypatch.setattr(command, "read_published", lambda: figures)
        code = certify.main([str(self.checkpoint), "--paper", figures[0].key, *words])
        return code, self.capsys.readouterr().out

    def differences(self, figure: PublishedFigure) -> dict[str, tuple[str, str | None]]:
        """What differs, here and as published."""
        _, output = self(figure, words=("--json",))
        [found] = json.loads(output)["figures"]
        assert found["measured"], found["reason"]
        return {d["what"]: (d["here"], d["published"]) for d in found["differences"]}


def test_a_figure_in_the_measured_interval_is_inside(run: Run, hmdb51: float) -> None:
    code, output = run(figure(hmdb51, spread=1.5), words=("--json",))
    report = json.loads(output)
    [found] = report["figures"]
    assert (code, found["verdict"], found["reason"]) == (0, "inside", None)
    assert found["measured"]["percent"] == pytest.approx(hmdb51)
    assert found["measured"]["low"] < hmdb51 < found["measured"]["high"]
    assert found["measured"]["num_clips"] == 12
    assert found["differences"] == []
    assert found["figure"]["source"] == "a test"
    assert len(report["backbone"]["sha256"]) == 64
    code, output = run(figure(hmdb51, spread=1.5))
    assert code == 0
    assert f"{hmdb51:.1f} ± 1.5" in output
    assert output.endswith("1 inside, 0 outside, 0 not scored\n")


def test_one_figure_outside_fails_the_certificate(run: Run, hmdb51: float) -> None:
    inside, outside = figure(hmdb51), figure(100, source="another test")
    code, output = run(inside, outside)
    assert code == 1
    assert output.endswith("1 inside, 1 outside, 0 not scored\n")
    assert run(outside)[0] == 1


def test_what_has_no_data_is_not_scored_and_never_passed(run: Run, hmdb51: float) -> None:
    lacking = figure(hmdb51, benchmark="zero_shot/ucf101")
    code, output = run(figure(hmdb51), lacking)
    assert code == 0
    assert "VITACLIP_DATA_UCF101 is not set" in output
    assert output.endswith("1 inside, 0 outside, 1 not scored\n")
    code, output = run(lacking)
    assert code == 2
    assert output.endswith("0 inside, 0 outside, 1 not scored\n")
    assert run(figure(hmdb51), lacking, words=("--benchmark", "zero_shot/ucf101"))[0] == 2


@pytest.mark.parametrize(
    ("changes", "what", "here", "published"),
    [
        ({"method": "X-CLIP"}, "method", "vita_clip", "x_clip"),
        ({"trained_on": "kinetics400/train"}, "trained on", "motions/train", "kinetics400/train"),
        (
            {"backbone": "ViT-B-16/openai"},
            "backbone",
            "ViT-test-small/random",
            "ViT-B-16/openai",
        ),
        ({"frames": "8/32"}, "frames", "4", "8/32"),
        ({"frames": None}, "frames", "4", None),
        ({"sampling": "uniform"}, "sampling", "dense 2", "uniform"),
        ({"image_size": 224}, "image size", "32", "224"),
        ({"precision": "bf16"}, "precision", "fp32", "bf16"),
        ({"views": None}, "views", "1x1", None),
        (
            {"splits": "test_1 test_2 test_4"},
            "splits",
            "test_1 test_2 test_3",
            "test_1 test_2 test_4",
        ),
        ({"texts": "rewritten names"}, "texts", "names", "rewritten names"),
    ],
)
def test_each_difference_is_named(
    run: Run, hmdb51: float, changes: dict[str, object], what: str, here: str, published: str | None
) -> None:
    published_figure = figure(hmdb51, **changes)
    assert run.differences(published_figure) == {what: (here, published)}
    _, output = run(published_figure)
    [line] = [line for line in output.splitlines() if f" {what} " in line]
    for text in (here, published or "not stated", HMDB51):
        assert text in line


@pytest.mark.parametrize(
    ("method", "here"), [("vita_clip", "not recorded"), ("frozen_clip", "nothing")]
)
def test_training_is_told_only_where_it_is_on_record(
    run: Run,
    hmdb51: float,
    small_backbone: BackboneConfig,
    motion_dataset: str,
    tmp_path: Path,
    method: str,
    here: str,
) -> None:
    run.checkpoint = trained(
        small_backbone, motion_dataset, tmp_path / "untrained", epochs=0, method=method
    )
    published_figure = figure(hmdb51, method=method.replace("_", " "))
    assert run.differences(published_figure) == {"trained on": (here, "motions/train")}


@pytest.mark.parametrize("texts", ["a video of {}.", "kinetics700"])
def test_published_sentences_and_views_are_scored(run: Run, hmdb51: float, texts: str) -> None:
    assert run.differences(figure(hmdb51, texts=texts, views="2x3")) == {}


def test_missing_and_broken_clips_are_counted(run: Run, hmdb51: float, tmp_path: Path) -> None:
    *_, missing, broken = sorted((tmp_path / "hmdb51").rglob("*.avi"))
    missing.unlink()
    counts = ("3 missing and 0 broken of 12", "all of them")
    assert run.differences(figure(hmdb51)) == {"clips": counts}
    broken.write_bytes(b"no video")
    counts = ("3 missing and 3 broken of 12", "all of them")
    assert run.differences(figure(hmdb51)) == {"clips": counts}


def test_own_draws_of_kinetics600_stand_in_for_the_published_lists(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, rng = tmp_path / "kinetics600", np.random.default_rng(0)
    rows = []
    for i, name in enumerate(zero_shot_classes("zero_shot")[::40]):
        write_moving_square(root / "val" / f"{i:011d}_000000_000010.mp4", rng)
        rows.append(f'"{name}",{i:011d},0,10,val,0')
    (root / "val.csv").write_text(
        "\n".join(["label,youtube_id,time_start,time_end,split,is_cc", *rows])
    )
    monkeypatch.setenv("VITACLIP_DATA_KINETICS600", str(root))
    lists = "ZS_split1_K600_eval ZS_split2_K600_eval ZS_split3_K600_eval"
    draws = "zero_shot_1 zero_shot_2 zero_shot_3"
    published = figure(50, benchmark=KINETICS600, splits=lists)
    assert run.differences(published) == {"splits": (draws, lists)}


def test_what_cannot_be_scored_so_is_told(run: Run, hmdb51: float) -> None:
    code, output = run(figure(hmdb51, splits=WHOLE))
    assert code == 2
    assert "no split holds all videos" in output
    code, output = run(figure(hmdb51, benchmark="supervised/hmdb51"))
    assert code == 2
    assert "supervised evaluation needs the 4 classes the checkpoint was trained on" in output


def test_figures_of_the_checkpoints_frames_and_training_are_taken() -> None:
    known = [f for f in read_published() if f.key == "vita_clip"]
    supervised = [f for f in known if f.benchmark == "supervised/kinetics400"]
    assert [f.printed for f in supervised] == ["80.5", "81.8", "82.9"]
    for num_frames, wanted in (
        (8, ["80.5", "81.8"]),
        (16, ["82.9"]),
        (4, ["80.5", "81.8", "82.9"]),
    ):
        data = DataConfig(dataset="kinetics400", num_frames=num_frames)
        fitting = fitting_figures(supervised, data)
        assert [f.printed for f in fitting] == wanted
    few = [f for f in read_published() if (f.key, f.benchmark) == ("mote", "supervised/hmdb51")]
    data = DataConfig(dataset="hmdb51", train_split="few_shot_8")
    assert [f.printed for f in fitting_figures(few, data)] == ["67.2"]


def test_a_figure_that_another_fits_better_is_not_scored(run: Run, hmdb51: float) -> None:
    code, output = run(figure(hmdb51), figure(100, frames="8"))
    assert code == 0
    assert f"another figure of {HMDB51} fits this checkpoint of 4 frames better" in output


def test_scores_on_published_data_stand_beside_published_figures(
    checkpoint: Path, hmdb51: float, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(checkpoint), "--on", "hmdb51"]) == 0
    scores, _, table = capsys.readouterr().out.partition("as published, not measured here")
    assert f"{hmdb51 / 100:.3f}" in scores
    assert "0.486 ± 0.006" in table


def test_mistakes_are_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = tmp_path / "released.pth"
    released.write_bytes(b"anything")
    for words, message in (
        ([str(released), "--paper", "vita_clip"], "`vitaclip import-checkpoint` makes one"),
        ([str(checkpoint), "--paper", "vita_clp"], "did you mean 'vita_clip'?"),
        (
            [str(checkpoint), "--paper", "vita_clip", "--benchmark", "zero_shot/hmdb5"],
            "did you mean 'zero_shot/hmdb51'?",
        ),
    ):
        assert certify.main(words) == 2
        assert message in capsys.readouterr().err
