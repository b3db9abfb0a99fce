"""``python -m vitaclip data check|prepare|show`` as a user calls them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import matplotlib.image
import pytest

from testing.data_videos import moving_frames, write_video
from testing.paths import SHARED_CLIPS
from vitaclip.__main__ import main
from vitaclip.config import DataConfig, TrainConfig
from vitaclip.data.check import check_file
from vitaclip.data.datasets import load_dataset
from vitaclip.data.loader import train_batches
from vitaclip.train import fit


def data(*arguments):
    """The exit code."""
    return main(["data", *map(str, arguments)])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two splits of small videos; the process works in a folder of its own."""
    folder = tmp_path / "clips"
    for i in range(5):
        write_video(folder / f"{i}.mp4", moving_frames(10 + i, seed=i))
    (folder / "train.csv").write_text("0.mp4,wave\n1.mp4,run\n2.mp4,run\n")
    (folder / "val.csv").write_text("3.mp4,wave\n4.mp4,run\n")
    (folder / "classes.txt").write_text("wave\nrun\n")
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(folder))
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return folder


def table_rows(text):
    return [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if "│" in line
    ]


def test_check_reports_every_split(root, capsys):
    data("check", "mine")
    train, val = table_rows(capsys.readouterr().out)
    assert train[:5] == ["train", "2", "3", "0", "0"]
    assert val[:5] == ["val", "2", "2", "0", "0"]
    assert train[6] == "0.4-0.4-0.5"  # 10, 11 and 12 frames of 1/25 s
    assert train[8:] == ["80x64", "h264"]
    lines = [json.loads(line) for line in Path("mine-check.jsonl").read_text().split("\n") if line]
    assert {Path(line["path"]).name: line["num_frames"] for line in lines} == {
        f"{i}.mp4": 10 + i for i in range(5)
    }


def test_check_lists_broken_and_missing_files_and_fails(root, capsys):
    (root / "1.mp4").write_bytes((root / "1.mp4").read_bytes()[:300])
    (root / "3.mp4").unlink()
    assert data("check", "mine") == 1
    captured = capsys.readouterr()
    for text in ("2 of 5 videos are broken", "1.mp4", "3.mp4"):
        assert text in captured.err
    train, val = table_rows(captured.out)
    assert train[2:5] == ["2", "1", "0"]
    assert val[2:5] == ["1", "0", "1"]


def test_check_starts_again_where_it_was(root, monkeypatch):
    checked = []

    def counting(path):
        checked.append(Path(path).name)
        return check_file(path)

    monkeypatch.setattr("vitaclip.data.check.check_file", counting)
    data("check", "mine", "--split", "train")
    assert sorted(checked) == ["0.mp4", "1.mp4", "2.mp4"]
    report = Path("mine-check.jsonl")
    report.write_text(report.read_text()[:-20])  # killed while writing the last line
    checked.clear()
    os.utime(root / "0.mp4", (5, 5))  # and one file changed
    data("check", "mine")
    assert sorted(checked) == ["0.mp4", "2.mp4", "3.mp4", "4.mp4"]
    checked.clear()
    data("check", "mine")
    assert checked == []


def test_prepare_says_what_it_did_and_how_to_use_it(root, capsys, monkeypatch, tmp_path):
    out = tmp_path / "prepared"
    data("prepare", "mine", "--out", out, "--short-side", 32)
    printed = capsys.readouterr().out
    assert "5 videos prepared, 0 were ready, 0 broken" in printed
    assert f"VITACLIP_DATA_MINE={out}" in printed
    data("prepare", "mine", "--out", out, "--short-side", 32)
    assert "0 videos prepared, 5 were ready" in capsys.readouterr().out
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(out))
    data("check", "mine", "--report", tmp_path / "report.jsonl")
    assert [row[2] for row in table_rows(capsys.readouterr().out)] == ["3", "2"]
    (root / "2.mp4").write_bytes(b"")
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(root))
    assert data("prepare", "mine", "--out", out, "--short-side", 32) == 1
    assert re.search(r"1 of 5 videos are broken:\n .*2\.mp4", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare", "mine", "--out", "o", "--short-side", "2"), "--short-side 2"),
        (("prepare", "mine", "--out", "o", "--crf", "70"), "--crf 70"),
        (("show", "mine", "--clip", "3", "--out", "x.png"), r"--clip: found 3, allowed 0\.\.2"),
        (("check", "mine", "--split", "vla"), "did you mean 'val'"),
        (("check", "mien"), "VITACLIP_DATA_MIEN is not set"),
    ],
)
def test_bad_input(root, capsys, arguments, message):
    assert data(*arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_show_draws_the_test_view_and_the_training_draws(root, capsys):
    data(
        "show",
        "mine",
        "--split",
        "val",
        "--clip",
        1,
        "--out",
        "pictures/strip.png",
        "--image-size",
        48,
    )
    picture = matplotlib.image.imread("pictures/strip.png")
    assert capsys.readouterr().out == "pictures/strip.png\n"
    assert picture.shape[1] > 2 * picture.shape[0]  # 8 frames wide, 3 rows high
    assert len({tuple(pixel) for row in picture[::8, ::8] for pixel in row}) > 50


def test_show_refuses_a_broken_clip(root, capsys):
    (root / "0.mp4").write_bytes(b"")
    assert data("show", "mine", "--clip", 0, "--out", "strip.png") == 1
    assert "0.mp4" in capsys.readouterr().err


@pytest.mark.skipif(
    not SHARED_CLIPS.is_dir(), reason="no real clips beside this checkout (../shared/clips)"
)
def test_real_clips_go_through_check_prepare_show_and_a_training_step(
    tmp_path, monkeypatch, capsys, small_backbone
):
    """One clip of HMDB51, UCF101 and Kinetics each."""
    folder, out = tmp_path / "real", tmp_path / "prepared"
    folder.mkdir()
    names = [
        "TrumanShow_wave_f_nm_np1_fr_med_26.avi",
        "v_SoccerJuggling_g23_c01.avi",
        "R6llTwEh07w.mp4",
    ]
    for name in names:
        shutil.copy(SHARED_CLIPS / name, folder)
    for split in ("train", "val"):
        rows = "".join(f"{name} {label}\n" for label, name in enumerate(names))
        (folder / f"{split}.txt").write_text(rows)
    (folder / "classes.txt").write_text("wave\nSoccerJuggling\nriding a segway\n")
    monkeypatch.setenv("VITACLIP_DATA_REAL", str(folder))
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    data("check", "real")
    assert table_rows(capsys.readouterr().out)[0][2:5] == ["3", "0", "0"]
    data("prepare", "real", "--out", out)
    for root in (folder, out):
        monkeypatch.setenv("VITACLIP_DATA_REAL", str(root))
        manifest = load_dataset("real", "train")
        assert manifest.classes == ("wave", "soccer juggling", "riding a segway")
        data("show", "real", "--clip", 1, "--out", f"{root.name}.png")
        config = TrainConfig(batch_size=3, data=DataConfig())
        (batch,) = train_batches(manifest, config, image_size=224, epoch=0)
        assert batch.video.shape == (3, 3, 8, 224, 224)
        assert not batch.broken
        training = TrainConfig(
            backbone=small_backbone,
            data=DataConfig(dataset="real", num_frames=4),
            batch_size=3,
            epochs=1,
            num_threads=1,
        )
        (metrics,) = fit(training).history
        assert metrics["data/broken"] == 0
        assert metrics["train/loss"] > 0
