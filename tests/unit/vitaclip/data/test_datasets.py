"""The published data sets, in miniature replicas of their official layouts with real videos
inside.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import pytest

from testing.data_videos import moving_frames, write_video
from vitaclip.class_names import clean_class_name
from vitaclip.config import AugmentConfig, DataConfig, TrainConfig
from vitaclip.data.class_draws import (
    half_classes,
    renamed_kinetics_classes,
    unseen_kinetics600_classes,
    zero_shot_classes,
)
from vitaclip.data.datasets import available_splits, load_dataset
from vitaclip.data.formats import CLASS_LISTS, FORMATS
from vitaclip.data.loader import train_batches
from vitaclip.data.manifest import read_class_list
from vitaclip.errors import InputError

FRAMES = moving_frames(6, 32, 48)
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in FORMATS:
        monkeypatch.setenv(f"VITACLIP_DATA_{name.upper()}", str(tmp_path))
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def mp4(path):
    return write_video(path, FRAMES)


def avi(path):
    return write_video(path, FRAMES, "mpeg4")


def found(manifest):
    """(file name, raw class, clean class) of every clip."""
    return [
        (
            clip.path.rsplit("/", 1)[1],
            manifest.raw_classes[clip.label],
            manifest.classes[clip.label],
        )
        for clip in manifest.clips
    ]


def trains(manifest):
    """Whether the clips go through the loader."""
    augment = AugmentConfig(rand_augment=None)
    config = TrainConfig(
        batch_size=len(manifest.clips), data=DataConfig(num_frames=4, augment=augment)
    )
    (batch,) = train_batches(manifest, config, image_size=32, epoch=0)
    return not batch.broken and batch.video.shape == (len(manifest.clips), 3, 4, 32, 32)


@pytest.mark.parametrize(
    "folder", ["train", "train/riding a bike", "compress/train_256/riding_a_bike"]
)
@pytest.mark.parametrize("annotations", ["", "annotations/"])
def test_kinetics400(root, folder, annotations):
    rows = "riding a bike,-aNccq2jvUA,55,65,train,0\nhigh jump,0bk_zXtqOTQ,20,30,train,0\n"
    write(root / f"{annotations}train.csv", HEADER + rows)
    write(root / f"{annotations}validate.csv", HEADER + "abseiling,abcdefghijk,1,11,validate,0\n")
    write(
        root / f"{annotations}test.csv",
        HEADER + '"massaging person\'s head",_-345678901,100,110,test,0\n',
    )
    mp4(root / folder / "-aNccq2jvUA_000055_000065.mp4")
    mp4(root / folder / "0bk_zXtqOTQ_000020_000030.mp4")
    mp4(root / "val/abcdefghijk_000001_000011.mp4")
    mp4(root / "test/_-345678901_000100_000110.mp4")
    train = load_dataset("kinetics400", "train")
    assert found(train) == [
        ("-aNccq2jvUA_000055_000065.mp4", "riding a bike", "riding a bike"),
        ("0bk_zXtqOTQ_000020_000030.mp4", "high jump", "high jump"),
    ]
    assert train.clips[0].label == 267  # 'riding a bike' in the published order
    assert [row[1] for row in found(load_dataset("kinetics400", "val"))] == ["abseiling"]
    assert [row[1] for row in found(load_dataset("kinetics400", "test"))] == [
        "massaging person's head"
    ]
    assert trains(train)


def test_kinetics_videos_without_a_file_are_listed_and_counted(root, caplog):
    rows = "".join(f"high jump,{i:011d},0,10,train,0\n" for i in range(3))
    write(root / "train.csv", HEADER + rows)
    mp4(root / "train/00000000001_000000_000010.mp4")
    with caplog.at_level(logging.WARNING):
        manifest = load_dataset("kinetics400", "train")
    assert len(manifest.clips) == 1
    assert manifest.missing == ("00000000000_000000_000010", "00000000002_000000_000010")
    assert "kinetics400 train: 2 of 3 listed videos are missing" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "youtube_id,time_start,time_end,split\n-aNccq2jvUA,55,65,test\n",
        "label,youtube_id,time_start,time_end,split\n,-aNccq2jvUA,55,65,test\n",
        '"youtube_id","label","time_start","time_end"\n-aNccq2jvUA,"",55,65\n',
    ],
)
@pytest.mark.parametrize("name", ["kinetics400", "kinetics600"])
def test_a_test_list_without_labels(root, name, text, caplog):
    write(root / "annotations/test.csv", text)
    write(root / "val.csv", HEADER + "high jump,a,0,10,val,0\n")
    with pytest.raises(InputError, match=r"test\.csv, line 2: has no label"):
        load_dataset(name, "test")
    assert available_splits(name, root) == ("val",)
    assert "split test is left out" in caplog.text


def test_kinetics_columns_may_stand_in_any_order(root):
    write(root / "val.csv", 'youtube_id,"label",time_start,time_end\na,high jump,0,10\n')
    mp4(root / "a_000000_000010.mp4")
    assert found(load_dataset("kinetics400", "val"))[0][1] == "high jump"


def test_kinetics600_and_its_unseen_classes(root):
    classes = read_class_list(CLASS_LISTS / "kinetics600.txt")
    some = ["abseiling", "acting in play", "hugging (not baby)", "yarn spinning", classes[300]]
    rows = [f"{name},{i:011d},0,10,validate,0\n" for i, name in enumerate(some)]
    write(root / "val.csv", HEADER + "".join(rows))
    for i in range(len(some)):
        mp4(root / f"val/{i:011d}_000000_000010.mp4")
    assert len(load_dataset("kinetics600", "val").clips) == 5
    unseen = load_dataset("kinetics600", "zero_shot")
    assert len(unseen.classes) == 220
    assert {"acting in play", "yarn spinning"} <= {row[1] for row in found(unseen)}
    assert not {"abseiling", "hugging (not baby)"} & {row[1] for row in found(unseen)}
    first = load_dataset("kinetics600", "zero_shot_1")
    assert len(first.classes) == 160
    assert set(found(first)) <= set(found(unseen))


# SHA-256 of the class names in Open-VCLIP's own ten lists, a line for each, without spaces
HALVES = {
    "hmdb51": "e346b2cc4d8d2224382bdaaac1fe0d4784adcf725fc840b64423e246f6596d92",
    "ucf101": "3f37e4d255de70fa94432f83aec78bb09ea81163885ced9d6433f2769c0aee73",
}


@pytest.mark.parametrize(("name", "size"), [("hmdb51", 25), ("ucf101", 50)])
def test_the_halves_are_those_that_open_vclip_publishes(name, size) -> None:
    halves = [half_classes(name, number) for number in range(1, 11)]
    assert all(len(set(half)) == size for half in halves)
    text = "\n".join(",".join(map(clean_class_name, half)).replace(" ", "") for half in halves)
    assert hashlib.sha256(text.encode()).hexdigest() == HALVES[name]


def test_halves_and_the_whole_of_ucf101(root):
    folder, (first, *_) = root / "ucfTrainTestlist", half_classes("ucf101", 3)
    other = next(c for c in ("YoYo", "Archery", "Typing") if c not in half_classes("ucf101", 3))
    names = [f"{raw}/v_{raw}_g0{n}_c01.avi" for n in (1, 2) for raw in (first, other)]
    write(folder / "trainlist01.txt", "".join(f"{name} 1\n" for name in names[:2]))
    assert available_splits("ucf101", root) == ("train_1",)
    with pytest.raises(
        InputError, match="no annotations of split 'half_3'.*half_1, half_10, half_2"
    ):
        load_dataset("ucf101", "half_3")
    write(folder / "testlist01.txt", "".join(f"{name}\n" for name in names[2:]))
    for name in names:
        avi(root / "UCF-101" / name)
    assert [row[1] for row in found(load_dataset("ucf101", "all"))] == [first, other] * 2
    half = load_dataset("ucf101", "half_3")
    assert [row[1] for row in found(half)] == [first] * 2
    assert half.raw_classes == half_classes("ucf101", 3)
    assert available_splits("ucf101", root) == ("train_1", "test_1")


def test_halves_and_the_whole_of_hmdb51(root):
    half = half_classes("hmdb51", 10)
    other = next(c for c in ("brush_hair", "wave", "cartwheel") if c not in half)
    for raw in (half[4], other):
        text = "a.avi 0\nb.avi 1\nc.avi 2\n"
        write(root / f"testTrainMulti_7030_splits/{raw}_test_split1.txt", text)
        for name in "abc":
            avi(root / f"{raw}/{name}.avi")
    whole = [(f"{name}.avi", raw) for raw in sorted((half[4], other)) for name in "bc"]
    assert sorted(row[:2] for row in found(load_dataset("hmdb51", "all"))) == sorted(whole)
    assert [row[:2] for row in found(load_dataset("hmdb51", "half_10"))] == [
        ("b.avi", half[4]),
        ("c.avi", half[4]),
    ]


def test_kinetics700_has_lists_and_classes_of_its_own(root):
    rows = "arranging flowers,aaaaaaaaaaa,3,13,train\nabseiling,bbbbbbbbbbb,0,10,train\n"
    write(root / "train.csv", "label,youtube_id,time_start,time_end,split\n" + rows)
    mp4(root / "train/arranging flowers/aaaaaaaaaaa_000003_000013.mp4")
    mp4(root / "train/abseiling/bbbbbbbbbbb_000000_000010.mp4")
    train = load_dataset("kinetics700", "train")
    assert [row[1] for row in found(train)] == ["arranging flowers", "abseiling"]
    # among 700 classes in alphabetical order
    assert (len(train.classes), [clip.label for clip in train.clips]) == (700, [12, 0])
    assert list(train.classes) == sorted(train.classes)


def test_the_220_classes_that_kinetics400_has_not():
    old, new = (read_class_list(CLASS_LISTS / f"kinetics{n}.txt") for n in (400, 600))
    renamed, unseen = renamed_kinetics_classes(), unseen_kinetics600_classes()
    assert len(set(old) & set(new)) == 368
    assert len(renamed) == 12
    assert len(unseen) == 220
    assert all(before in old and before not in new for before in renamed)
    assert all(after in new and after not in old for after in renamed.values())
    assert not set(unseen) & (set(old) | set(renamed.values()))
    draws = [zero_shot_classes(f"zero_shot_{n}") for n in (1, 2, 3)]
    assert len({*map(frozenset, draws)}) == 3
    assert all(len(set(draw)) == 160 and set(draw) < set(unseen) for draw in draws)


def test_published_lists_of_kinetics600_test_videos(root):
    """ViFi-CLIP's files: 'train/<video>.mp4 <label>' with labels in a CSV of id and name."""
    write(root / "ZS_split1_K600_eval.txt", "train/-aNccq2jvUA_000055_000065.mp4 1\nval/b.mp4 0\n")
    write(root / "ZS_split1_K600_eval_classes.csv", 'id,name\n0,acting in play\n1,"arguing"\n')
    manifest = load_dataset("kinetics600", "ZS_split1_K600_eval")
    assert manifest.classes == ("acting in play", "arguing")
    assert [clip.label for clip in manifest.clips] == [1, 0]


def test_ucf101(root):
    folder = root / "ucfTrainTestlist"
    for n in (1, 2, 3):
        write(folder / f"trainlist0{n}.txt", f"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c0{n}.avi 1\r\n")
        write(
            folder / f"testlist0{n}.txt", f"HandstandPushups/v_HandStandPushups_g01_c0{n}.avi\r\n"
        )
        avi(root / f"UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c0{n}.avi")
        avi(root / f"UCF-101/HandstandPushups/v_HandStandPushups_g01_c0{n}.avi")
    write(folder / "classInd.txt", "1 ApplyEyeMakeup\r\n")
    for n in (1, 2, 3):
        train, test = (load_dataset("ucf101", f"{subset}_{n}") for subset in ("train", "test"))
        assert found(train) == [
            (f"v_ApplyEyeMakeup_g08_c0{n}.avi", "ApplyEyeMakeup", "apply eye makeup")
        ]
        assert found(test) == [
            (f"v_HandStandPushups_g01_c0{n}.avi", "HandstandPushups", "handstand pushups")
        ]
        assert train.clips[0].label == 0
    assert load_dataset("ucf101", "train") == load_dataset("ucf101", "train_1")
    assert load_dataset("ucf101", "val") == load_dataset("ucf101", "test_1")
    assert trains(load_dataset("ucf101", "train_2"))


@pytest.mark.parametrize("videos", ["", "hmdb51_org/"])
def test_hmdb51(root, videos):
    odd = "#20(1)_[x];brush_hair_f_cm_np1_le_goo_0.avi"
    folder = root / "testTrainMulti_7030_splits"
    for n in (1, 2, 3):
        uses = [(n + i) % 3 for i in range(3)]
        write(
            folder / f"brush_hair_test_split{n}.txt",
            f"{odd} {uses[0]} \nb.avi {uses[1]} \nc.avi {uses[2]} \n",
        )
        write(folder / f"wave_test_split{n}.txt", "b.avi 1 \n")
    for name in (odd, "b.avi", "c.avi"):
        avi(root / f"{videos}brush_hair/{name}")
    avi(root / f"{videos}wave/b.avi")
    assert found(load_dataset("hmdb51", "train_1")) == [
        (odd, "brush_hair", "brush hair"),
        ("b.avi", "wave", "wave"),
    ]
    assert found(load_dataset("hmdb51", "test_1")) == [("b.avi", "brush_hair", "brush hair")]
    assert found(load_dataset("hmdb51", "test_2"))[0][0] == odd
    assert found(load_dataset("hmdb51", "test_3"))[0][0] == "c.avi"
    train = load_dataset("hmdb51", "train")
    # two files named b.avi
    assert [clip.path.split("/")[-2] for clip in train.clips] == [
        "brush_hair",
        "wave",
    ]
    assert trains(train)


@pytest.mark.parametrize("naming", ["{}.json", "something-something-v2-{}.json", "labels/{}.json"])
def test_ssv2(root, naming):
    items: list[dict[str, Any]] = [
        {
            "id": "78687",
            "label": "holding a ball",
            "template": "Holding [something]",
            "placeholders": ["a ball"],
        },
        {
            "id": "42326",
            "label": "putting a pen, a cup and a key on the table",
            "template": "Putting [something], [something] and [something] on the table",
        },
    ]
    write(root / naming.format("train"), json.dumps(items))
    write(root / naming.format("validation"), json.dumps(items[:1]))
    write(root / naming.format("labels"), json.dumps({"Holding something": "16"}))
    for item in items:
        write_video(root / f"20bn-something-something-v2/{item['id']}.webm", FRAMES, "libvpx-vp9")
    train = load_dataset("ssv2", "train")
    assert found(train) == [
        ("78687.webm", "Holding something", "holding something"),
        (
            "42326.webm",
            "Putting something, something and something on the table",
            "putting something, something and something on the table",
        ),
    ]
    assert train.clips[0].label == 16
    assert len(load_dataset("ssv2", "val").clips) == 1
    assert trains(train)


def test_every_dataset_also_comes_as_list_files(root):
    """As Vita-CLIP, EVL, X-CLIP and mmaction2 write them; the published class names serve."""
    write(root / "train.csv", "videos/a.mp4,1\nvideos/b.mp4,0\n")
    manifest = load_dataset("kinetics400", "train")
    assert [manifest.classes[clip.label] for clip in manifest.clips] == [
        "air drumming",
        "abseiling",
    ]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("YoYo", "yo yo"),
        ("brush_hair", "brush hair"),
        ("Folding [something]", "folding something"),
        ("passing American football (in game)", "passing american football (in game)"),
        ("moving left", "moving left"),
    ],
)
def test_clean_class_names(raw, clean):
    assert clean_class_name(raw) == clean


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("kinetics400", 400),
        ("kinetics600", 600),
        ("kinetics700", 700),
        ("ucf101", 101),
        ("hmdb51", 51),
        ("ssv2", 174),
    ],
)
def test_class_lists_are_complete_and_name_their_source(name, count):
    classes = read_class_list(CLASS_LISTS / f"{name}.txt")
    assert len(classes) == len({clean_class_name(raw) for raw in classes}) == count
    assert "# Source:" in (CLASS_LISTS / f"{name}.txt").read_text()


def test_bad_annotations_are_named(root):
    write(root / "train.csv", HEADER + "high jump,a,0,10,train,0\nhihg jump,b,0,10,train,0\n")
    with pytest.raises(
        InputError, match=r"train.csv, line 3: found class 'hihg jump', allowed: 400.*'high jump'"
    ):
        load_dataset("kinetics400", "train")
    write(root / "train.csv", HEADER + "high jump,a,zero,10,train,0\n")
    with pytest.raises(InputError, match=r"train.csv, line 2: cannot be read .*allowed columns"):
        load_dataset("kinetics400", "train")
    write(root / "train.csv", HEADER + "high jump,a,0,10,train,0\n")
    with pytest.raises(InputError, match="none of the 1 listed videos is there"):
        load_dataset("kinetics400", "train")
    write(root / "train.json", '{"id": 1}')
    with pytest.raises(InputError, match=r"train.json: cannot be read .*'id' and 'template'"):
        load_dataset("ssv2", "train")
    for content in ("[" * 200_000, "null", "[[]]", '[{"id": 1, "template": null}]', "[1", ""):
        write(root / "train.json", content)
        with pytest.raises(InputError, match=r"train.json: cannot be read .*'id' and 'template'"):
            load_dataset("ssv2", "train")
    write(root / "train.csv", HEADER + f"high jump,{'x' * 200_000},0,10,train,0\n")
    with pytest.raises(InputError, match=r"train.csv: is no CSV"):
        load_dataset("kinetics400", "train")
    write(root / "ucfTrainTestlist/trainlist01.txt", "video.avi 1\n")
    with pytest.raises(InputError, match=r"trainlist01.txt, line 1: found 'video.avi 1'"):
        load_dataset("ucf101", "train")
    write(root / "testTrainMulti_7030_splits/wave_test_split1.txt", "video.avi 5\n")
    with pytest.raises(InputError, match=r"wave_test_split1.txt, line 1: found 'video.avi 5'"):
        load_dataset("hmdb51", "train")
    with pytest.raises(InputError, match=r"no annotations of split 'trian'.*did you mean 'train'"):
        load_dataset("hmdb51", "trian")
