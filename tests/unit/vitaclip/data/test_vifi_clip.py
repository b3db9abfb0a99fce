"""ViFi-CLIP's published lists, in miniature replicas of their folders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vitaclip.data.datasets import available_splits, load_dataset
from vitaclip.data.formats import CLASS_LISTS
from vitaclip.data.manifest import Manifest, read_class_list
from vitaclip.data.vifi_clip import PUBLISHED
from vitaclip.errors import InputError

Write = Callable[[str, str], None]
NAMES = "id,name\n0,wave\n1,brush hair\n"
# data set -> (folder of the lists, start of the class files, all classes, two videos)
LAYOUTS = {
    "hmdb51": ("hmdb_splits", "hmdb_51", "hmdb_51_labels", ("clap_1.avi", "wave_0.avi")),
    "ucf101": ("ucf_splits", "ucf_101", "ucf_101_labels", ("v_YoYo_g01_c01.avi", "v_a.avi")),
    "ssv2": ("ssv2_splits", "ssv2_174", "ssv2_labels", ("78687.webm", "100904.webm")),
    "kinetics400": (
        "k400_splits",
        "kinetics_400",
        "kinetics_400_labels",
        ("val/-egPJubR-CE_000001_000011.mp4", "val/3caPS4FHFF8_000036_000046.mp4"),
    ),
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in PUBLISHED:
        monkeypatch.setenv(f"VITACLIP_DATA_{name.upper()}", str(tmp_path))
    return tmp_path


@pytest.fixture
def write(root: Path) -> Write:
    def write(name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


def found(manifest: Manifest) -> list[tuple[str, str]]:
    """(file name, class) of every clip."""
    return [(Path(clip.path).name, manifest.classes[clip.label]) for clip in manifest.clips]


def write_videos(write: Write, lists: Mapping[str, str]) -> None:
    for text in lists.values():
        for line in text.splitlines():
            write(f"videos/{line.rpartition(' ')[0]}", "")


@pytest.mark.parametrize("name", LAYOUTS)
def test_base_and_novel_classes_stand_in_the_published_order(name, root, write) -> None:
    folder, labels, _, videos = LAYOUTS[name]
    classes = read_class_list(CLASS_LISTS / f"{name}.txt")
    base, novel = [classes[7], classes[2], classes[40]], [classes[3], classes[1]]
    for part, names in (("base", base), ("novel", novel)):
        rows = "".join(f"{i},{raw.replace('_', ' ')}\n" for i, raw in enumerate(names))
        write(f"labels/{labels}_{part}_labels.csv", f"id,name\n{rows}")
    lists = {
        f"datasets_splits/base2novel_splits/{folder}/{file}.txt": "".join(
            f"{video} {label}\n" for video, label in zip(videos, order, strict=True)
        )
        for file, order in {
            "fs_base_s1_train": (0, 2),
            "fs_base_s3_train": (2, 1),
            "base_val": (1, 0),
            "novel_val": (1, 0),
        }.items()
    }
    for path, text in lists.items():
        write(path, text)
    write_videos(write, lists)

    assert load_dataset(name, "base_train_1").raw_classes == tuple(base)
    assert [c.label for c in load_dataset(name, "base_train_1").clips] == [0, 2]
    assert [c.label for c in load_dataset(name, "base_train_3").clips] == [2, 1]
    assert load_dataset(name, "base_val").classes == load_dataset(name, "base_train_1").classes
    unseen = load_dataset(name, "novel_val")
    assert unseen.raw_classes == tuple(novel)
    assert [c.label for c in unseen.clips] == [1, 0]
    assert [Path(c.path).name for c in unseen.clips] == [Path(v).name for v in videos]
    assert available_splits(name, root) == (
        "base_val",
        "novel_val",
        "base_train_1",
        "base_train_3",
    )
    with pytest.raises(InputError, match=r"no annotations of split 'base_train_2'.*base_train_2"):
        load_dataset(name, "base_train_2")


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "ssv2"])
@pytest.mark.parametrize("shots", [2, 4, 8, 16])
def test_few_shots_have_all_classes_in_the_order_of_the_validation_split(
    name, shots, root, write
) -> None:
    folder, _, labels, videos = LAYOUTS[name]
    classes = read_class_list(CLASS_LISTS / f"{name}.txt")
    # the authors' order of HMDB51 is not that of its own files
    published = sorted(classes, reverse=True)
    rows = "".join(f'{i},"{raw.replace("_", " ")}"\n' for i, raw in enumerate(published))
    write(f"labels/{labels}.csv", f"id,name\n{rows}")
    val = "validation.txt" if name == "ssv2" else "val1.txt"
    lists = {
        f"datasets_splits/{folder}/train1_few_shot_{shots}.txt": f"{videos[0]} 0\n{videos[1]} 3\n",
        f"datasets_splits/{folder}/{val}": f"{videos[1]} 1\n",
    }
    for path, text in lists.items():
        write(path, text)
    write_videos(write, lists)
    train, val_split = load_dataset(name, f"few_shot_{shots}"), load_dataset(name, "val")
    assert train.raw_classes == val_split.raw_classes == classes
    assert [train.raw_classes[clip.label] for clip in train.clips] == [published[0], published[3]]
    assert [val_split.raw_classes[clip.label] for clip in val_split.clips] == [published[1]]


@pytest.mark.parametrize("is_published", [True, False])
def test_names_that_hmdb51s_label_files_exchange_are_put_right(write, caplog, is_published) -> None:
    videos = [
        "A_ball_kick_f_cm_np1_le_med_0.avi",
        "b_kick_ball_u_cm_np1_ri_goo_1.avi",
        "c_draw_sword_exercise_u_nm_np1_fr_med_2.avi",
        "d_sword_u_nm_np1_fr_med_0.avi",
        "e_wave_u_nm_np1_fr_med_0.avi",
    ]
    names = ["kick", "kick ball", "sword exercise", "sword", "wave"]
    if is_published:
        names = ["kick ball", "kick", "sword", "sword exercise", "wave"]
    rows = "".join(f"{label},{name}\n" for label, name in enumerate(names))
    text = "".join(f"{video} {label}\n" for label, video in enumerate(videos))
    write_base(write, text, f"id,name\n{rows}")
    write_videos(write, {"": text})
    with caplog.at_level(logging.WARNING):
        manifest = load_dataset("hmdb51", "base_val")
    right = ["kick", "kick ball", "sword exercise", "sword", "wave"]
    assert found(manifest) == list(zip(videos, right, strict=True))
    told = "hmdb_51_base_labels.csv: 'kick' and 'kick_ball' are read the other way round"
    assert (told in caplog.text) == is_published


def test_published_draws_of_kinetics600_are_read_in_their_folders(write) -> None:
    lists = {"datasets_splits/k600_splits/ZS_split2_K600_eval.txt": "train/a.mp4 1\ntest/b.mp4 0"}
    write(*next(iter(lists.items())))
    write("labels/ZS_split2_K600.csv", "id,name\n0,acting in play\n1,arguing\n")
    write_videos(write, lists)
    manifest = load_dataset("kinetics600", "ZS_split2_K600_eval")
    assert found(manifest) == [("a.mp4", "arguing"), ("b.mp4", "acting in play")]
    assert len(manifest.classes) == 2


def write_base(write: Write, text: str, names: str | None = NAMES) -> None:
    write("datasets_splits/base2novel_splits/hmdb_splits/base_val.txt", text)
    if names is not None:
        write("labels/hmdb_51_base_labels.csv", names)


def test_videos_without_a_file_are_listed_and_counted(write, caplog) -> None:
    write_base(write, "a_wave_#;(1).avi 0\nlost.avi 1\n")
    write("hmdb51_org/wave/a_wave_#;(1).avi", "")
    with caplog.at_level(logging.WARNING):
        manifest = load_dataset("hmdb51", "base_val")
    assert found(manifest) == [("a_wave_#;(1).avi", "wave")]
    assert [Path(path).name for path in manifest.missing] == ["lost.avi"]
    assert "hmdb51 base_val: 1 of 2 listed videos are missing" in caplog.text


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("a.avi 0\nb.avi 2\n", NAMES, r"base_val.txt, line 2: found label '2', allowed 0..1"),
        ("a.avi\n", NAMES, r"base_val.txt, line 1: found 'a.avi', allowed 'path,label'"),
        (
            "a.avi 0\n",
            "id,name\n0,wave\n1,wvae\n",
            r"base_labels.csv: .*'wvae'.*51 classes.*'wave'",
        ),
        (
            "a.avi 0\n",
            "id,name\n0,wvae\n1,wave\n",
            r"base_labels.csv: .*'wvae'.*51 classes.*'wave'",
        ),
        ("a.avi 0\n", "id,name\n1,wave\n", r"base_labels.csv: found 1 ids from 1 to 1"),
        ("a.avi 0\n", None, r"labels/hmdb_51_base_labels.csv: cannot be read"),
        ("", NAMES, "base_val.txt: found no clips"),
        ("b.avi 0\n", NAMES, "none of the 1 listed videos is there"),
    ],
)
def test_bad_lists_are_named(write, text, names, message) -> None:
    write_base(write, text, names)
    write("a.avi", "")
    with pytest.raises(InputError, match=message):
        load_dataset("hmdb51", "base_val")


def test_official_files_and_lists_of_ones_own_come_first(root, write) -> None:
    names = enumerate(read_class_list(CLASS_LISTS / "ucf101.txt"))
    rows = "".join(f"{label},{name}\n" for label, name in names)
    write("labels/ucf_101_labels.csv", f"id,name\n{rows}")
    for n in (1, 2, 3):
        write(f"datasets_splits/ucf_splits/val{n}.txt", "v_theirs.avi 5\n")
    for video in ("v_theirs.avi", "YoYo/v_official.avi", "v_own.avi"):
        write(video, "")
    write("testlist02.txt", "YoYo/v_official.avi\n")
    write("test_3.csv", "v_own.avi,YoYo\n")
    assert found(load_dataset("ucf101", "test_1")) == [("v_theirs.avi", "band marching")]
    assert found(load_dataset("ucf101", "test_2")) == [("v_official.avi", "yo yo")]
    assert found(load_dataset("ucf101", "test_3")) == [("v_own.avi", "yo yo")]
    assert available_splits("ucf101", root) == ("test_2",)
