"""List files: both spellings, names with spaces and commas, and messages that name file and
line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vitaclip.data.datasets import load_dataset
from vitaclip.data.identity import identify
from vitaclip.data.manifest import Clip, Manifest, read_class_list, read_list
from vitaclip.errors import InputError

CLASSES = ("brush hair", "carve, slowly", "wave")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "video", "label"),
    [
        ("a.mp4,2", "a.mp4", 2),
        ("a.mp4 2", "a.mp4", 2),
        ("a.mp4\t2", "a.mp4", 2),
        ("a.mp4, wave", "a.mp4", 2),
        ("a.mp4 wave", "a.mp4", 2),
        ("a.mp4,brush hair", "a.mp4", 0),
        ("riding a bike/a b.mp4 1", "riding a bike/a b.mp4", 1),
        ("a,b.mp4,1", "a,b.mp4", 1),
        ("a,b.mp4 1", "a,b.mp4", 1),
        ("a.mp4,carve, slowly", "a.mp4", 1),
        ("a,carve, slowly", "a", 1),
        ("a.mp4,Brush_Hair", "a.mp4", 0),
        ("a.mp4 x/b.avi 1", "a.mp4 x/b.avi", 1),
        ('"a.mp4, b",1', "a.mp4, b", 1),
        ('"a,b.mp4","carve, slowly"', "a,b.mp4", 1),
        ("a#(1)[2];.avi 0", "a#(1)[2];.avi", 0),
    ],
)
def test_spellings(tmp_path, line, video, label):
    path = write(tmp_path / "train.csv", f"\ufeff{line}\n\n")
    assert read_list(path, CLASSES) == (Clip(str(tmp_path / video), label),)


def test_a_name_that_is_a_number_is_told(tmp_path, caplog):
    path = write(tmp_path / "train.csv", "a.mp4,1\n")
    assert read_list(path, ("1", "2", "3"))[0].label == 1
    assert "'1' is read as a class's number" in caplog.text
    caplog.clear()
    assert read_list(path, ("0", "1", "wave"))[0].label == 1
    assert not caplog.records


def test_absolute_paths_stay(tmp_path):
    path = write(tmp_path / "train.csv", "/videos/a.mp4,0\n")
    assert read_list(path, CLASSES)[0].path == "/videos/a.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,0\nb.mp4,3\n", r"train.csv, line 2: found label '3', allowed 0..2"),
        ("a.mp4,waev\n", r"line 1: found label 'waev'.*did you mean 'wave'"),
        ("a.mp4\n", r"line 1: found 'a.mp4', allowed 'path,label'"),
        ("\n\n", r"train.csv: found no clips"),
        ("a.mp4,0,1\n", r"line 1: found three columns in 'a.mp4,0,1'"),
        ("a.mp4 100 1\n", "found three columns"),
        ("a.MP4\t0.5\t1\n", "found three columns"),
        ("a.mp4, 0, 1\n", "found three columns"),
        ("a,0,1\n", "found three columns"),
        ("a.mp4,wave,1\n", "found three columns"),
        ("a.mp4,1,extra\n", "line 1: found label 'extra'"),
        ("a\0.mp4,1\n", "line 1: found a zero byte"),
        ("a.mp4,1,\n", "line 1: found label '1,'"),
        ("a.mp4," + "x" * 200_000 + "\n", "line 1: found label"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_list(write(tmp_path / "train.csv", text), CLASSES)


def test_unreadable_lists(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_list(tmp_path / "none.csv", CLASSES)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match=r"binary\.csv: cannot be read"):
        read_list(tmp_path / "binary.csv", CLASSES)


def test_class_lists(tmp_path):
    assert read_class_list(write(tmp_path / "c.txt", "# source\nwave\nrun\n")) == ("wave", "run")
    with pytest.raises(InputError, match=r"line 3: class 'wave' stands already in line 1"):
        read_class_list(write(tmp_path / "c.txt", "wave\nrun\nwave\n"))
    with pytest.raises(InputError, match="no class names"):
        read_class_list(write(tmp_path / "c.txt", "# only this\n"))


def test_a_list_dataset_is_found_through_its_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("VITACLIP_DATA_MY_CLIPS", str(tmp_path))
    write(tmp_path / "train.txt", "a.mp4 1\n")
    write(tmp_path / "test.csv", "b.mp4,other\n")
    write(tmp_path / "classes.txt", "wave\nrun\n")
    write(tmp_path / "test_classes.txt", "other\n")
    train, test = load_dataset("my-clips", "train"), load_dataset("my-clips", "test")
    assert train.classes == ("wave", "run")
    assert train.clips == (Clip(str(tmp_path / "a.mp4"), 1),)
    assert test.classes == ("other",)
    with pytest.raises(InputError, match=r"split 'tset'.*splits: test, train.*did you mean 'test'"):
        load_dataset("my-clips", "tset")


def test_listed_videos_that_lie_elsewhere_are_found_by_name(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(tmp_path))
    write(tmp_path / "classes.txt", "wave\nrun\n")
    lines = [
        "there.mp4 0",
        "train/other.mp4 0",
        "78687 1",
        "wave/b.avi 0",
        "run/b.avi 1",
        "c.mp4 1",
        "gone.mp4 1",
    ]
    write(tmp_path / "train.txt", "\n".join(lines))
    for name in (
        "there.mp4",
        "deep/train/other.webm",
        "x/78687.webm",
        "run/b.avi",
        "1/c.mp4",
        "2/c.mp4",
    ):
        write(tmp_path / name, "")
    manifest = load_dataset("mine", "train")
    found = [str(Path(clip.path).relative_to(tmp_path)) for clip in manifest.clips]
    assert found == [
        "there.mp4", "deep/train/other.webm", "x/78687.webm",
        "wave/b.avi",  # run/b.avi is listed as another clip
        "run/b.avi",
        "c.mp4",  # which of two files it is, nothing tells
        "gone.mp4",
    ]  # fmt: skip
    assert [clip.label for clip in manifest.clips] == [0, 0, 1, 0, 1, 1, 1]
    assert "mine train: 2 listed videos lie elsewhere" in caplog.text


@pytest.mark.parametrize("suffix", ["webm", "MPEG", "ts", "flv", "wmv", "3gp"])
def test_a_listed_video_is_found_in_any_container(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(tmp_path))
    write(tmp_path / "classes.txt", "wave\nrun\n")
    write(tmp_path / "train.csv", "videos/v 1.avi,run\n")
    write(tmp_path / f"elsewhere/v 1.{suffix}", "")
    assert load_dataset("mine", "train").clips == (
        Clip(str(tmp_path / f"elsewhere/v 1.{suffix}"), 1),
    )


@pytest.mark.parametrize("stem", ["train", "train_classes", "classes"])
def test_two_files_for_the_same_are_refused(tmp_path, monkeypatch, stem):
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(tmp_path))
    write(tmp_path / "train.csv", "a.mp4,0\n")
    write(tmp_path / "classes.txt", "wave\n")
    write(tmp_path / f"{stem}.txt", "wave\n")
    write(tmp_path / f"{stem}.csv", "id,name\n0,wave\n")
    with pytest.raises(InputError, match=rf"{stem}\.txt: found {stem}\.csv too"):
        load_dataset("mine", "train")


def test_the_identity_of_data_tells_classes_labels_and_sizes_wherever_the_files_lie(tmp_path):
    def identity(folder="here", classes=("left", "right"), labels=(0, 1), sizes=(5, 6)):
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / f"clip{size}.mp4" for size in (5, 6)]
        for path, size in zip(paths, sizes, strict=True):
            path.write_bytes(bytes(size))
        clips = tuple(Clip(str(path), label) for path, label in zip(paths, labels, strict=True))
        return identify(Manifest("clips", classes, clips))

    recorded = identity()
    assert recorded.differences(identity("elsewhere")) == []
    assert "classes are others" in recorded.differences(identity(classes=("right", "left")))[0]
    assert "clips or labels are others" in recorded.differences(identity(labels=(1, 0)))[0]
    assert "other sizes" in recorded.differences(identity(sizes=(5, 7)))[0]


def test_a_dataset_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("VITACLIP_DATA_ELSEWHERE", raising=False)
    with pytest.raises(InputError, match="VITACLIP_DATA_ELSEWHERE is not set"):
        load_dataset("elsewhere", "train")
    monkeypatch.setenv("VITACLIP_DATA_ELSEWHERE", str(tmp_path / "gone"))
    with pytest.raises(InputError, match="not a folder"):
        load_dataset("elsewhere", "train")
