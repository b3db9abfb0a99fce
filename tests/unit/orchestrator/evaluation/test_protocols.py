"""The published protocols on miniature replicas of the datasets' layouts, against accuracies
counted by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from orchestrator.config import Benchmark, ProtocolName
from orchestrator.evaluation.benchmark import (
    PUBLISHED_BENCHMARKS,
    load_checkpoint,
    score_models,
)
from orchestrator.evaluation.protocols.base_to_novel import BaseToNovel
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from testing.motions import write_moving_square
from vitaclip.class_names import clean_class_name
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.data.class_draws import half_classes, zero_shot_classes
from vitaclip.data.formats import CLASS_LISTS
from vitaclip.data.manifest import read_class_list
from vitaclip.prediction import predict
from vitaclip.train import fit

# for each split: video -> its class, as the dataset's files spell it
Splits = list[dict[Path, str]]


@pytest.fixture(scope="module")
def checkpoint(
    small_backbone: BackboneConfig, motion_dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return untrained(
        small_backbone, motion_dataset, tmp_path_factory.mktemp("protocols") / "checkpoint"
    )


def untrained(
    backbone: BackboneConfig, dataset: str, folder: Path, train: str = "train", val: str = "val"
) -> Path:
    """A checkpoint with prompts as they start."""
    config = TrainConfig.model_validate(
        {
            "backbone": backbone.model_dump(),
            "data": {
                "dataset": dataset,
                "train_split": train,
                "val_split": val,
                "num_frames": 4,
                "stride": 2,
                "max_broken": 0.2,
            },
            "batch_size": 8,
            "epochs": 0,
            "num_threads": 1,
        }
    )
    fit(config, on_epoch_end=lambda end: end.save(folder))
    return folder


def hmdb51(root: Path, rng: np.random.Generator, likely: list[str]) -> Splits:
    """Up to 5 videos a class; in split n, video n is for training and video n+1 is not used."""
    splits: Splits = [{}, {}, {}]
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir()
    for place, raw in enumerate(likely):
        videos = [
            write_moving_square(root / raw / f"v{i};[#](1).avi", rng) for i in range(5 - place)
        ]
        for n, split in enumerate(splits):
            uses = {n: 1, n + 1: 0}
            rows = [f"{path.name} {uses.get(i, 2)} " for i, path in enumerate(videos)]
            (lists / f"{raw}_test_split{n + 1}.txt").write_text("\n".join(rows))
            split.update({path: raw for i, path in enumerate(videos) if i not in uses})
    return splits


def ucf101(root: Path, rng: np.random.Generator, likely: list[str]) -> Splits:
    """In split n, group n is the test set, with one video of the likeliest class and n of the
    others.
    """
    splits: Splits = []
    (root / "ucfTrainTestlist").mkdir()
    for n in (1, 2, 3):
        counts = {raw: 1 if raw == likely[0] else n for raw in likely}
        names = [
            f"{raw}/v_{raw}_g0{n}_c0{c}.avi" for raw, count in counts.items() for c in range(count)
        ]
        (root / "ucfTrainTestlist" / f"testlist0{n}.txt").write_text("\n".join(names))
        (root / "ucfTrainTestlist" / f"trainlist0{n}.txt").write_text("")
        splits.append({write_moving_square(root / name, rng): name.split("/")[0] for name in names})
    return splits


def kinetics600(root: Path, rng: np.random.Generator, likely: list[str]) -> Splits:
    """A draw holds the videos of its 160 classes."""
    lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
    found = {}
    for i, raw in enumerate([*likely, *zero_shot_classes("zero_shot")[::20]]):
        lines.append(f'"{raw}",{i:011d},0,10,val,0')
        found[write_moving_square(root / "val" / f"{i:011d}_000000_000010.mp4", rng)] = raw
    (root / "val.csv").write_text("\n".join(lines))
    draws = [zero_shot_classes(f"zero_shot_{n}") for n in (1, 2, 3)]
    return [{path: raw for path, raw in found.items() if raw in draw} for draw in draws]


def classes_of(name: str, split: int) -> tuple[str, ...]:
    """The classes of a split, as the dataset's files spell them; 0: those of all splits."""
    if name == "kinetics600":
        return zero_shot_classes(f"zero_shot_{split}" if split else "zero_shot")
    return read_class_list(CLASS_LISTS / f"{name}.txt")


def ranking(checkpoint: Path, videos: list[Path], raw: tuple[str, ...]) -> list[list[str]]:
    """The five likeliest classes of each video, through another door than the benchmark's."""
    spelling = {clean_class_name(name): name for name in raw}
    return [
        [spelling[name] for name in p.classes] for p in predict(checkpoint, videos, list(spelling))
    ]


@pytest.mark.parametrize("build", [hmdb51, ucf101, kinetics600])
def test_three_splits_give_the_mean_and_spread_counted_by_hand(
    build: Callable[..., Splits], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, rng = build.__name__, np.random.default_rng(0)
    monkeypatch.setenv(f"VITACLIP_DATA_{name.upper()}", str(tmp_path / name))
    [likely] = ranking(
        checkpoint, [write_moving_square(tmp_path / "any.mp4", rng)], classes_of(name, 0)
    )
    (tmp_path / name).mkdir()
    top1, top5 = [], []
    splits = build(tmp_path / name, rng, likely[:3])
    for n, truth in enumerate(splits, start=1):
        ranked = ranking(checkpoint, list(truth), classes_of(name, n))
        top1.append(
            np.mean([best[0] == raw for best, raw in zip(ranked, truth.values(), strict=True)])
        )
        top5.append(
            np.mean([raw in best for best, raw in zip(ranked, truth.values(), strict=True)])
        )
    assert 0 < np.mean(top1) < 1
    splits_found = score_models({0: load_checkpoint(checkpoint)}, PUBLISHED_BENCHMARKS[name])[0]
    metrics = PUBLISHED_BENCHMARKS[name].summarize(splits_found)
    assert metrics[f"zero_shot/{name}/top1"] == pytest.approx(np.mean(top1))
    assert metrics[f"zero_shot/{name}/top1_std"] == pytest.approx(np.std(top1, ddof=1))
    assert metrics[f"zero_shot/{name}/top5"] == pytest.approx(np.mean(top5))
    assert metrics[f"zero_shot/{name}/num_clips"] == sum(map(len, splits))


def test_halves_and_the_whole_give_accuracies_counted_by_hand(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EP1 and EP3: of each class two videos, for training and test, count; an unused one does
    not.
    """
    monkeypatch.setenv("VITACLIP_DATA_HMDB51", str(tmp_path / "hmdb51"))
    rng, halves = np.random.default_rng(0), [f"half_{n}" for n in range(1, 11)]
    classes = {half: half_classes("hmdb51", n) for n, half in enumerate(halves, start=1)}
    classes["all"] = classes_of("hmdb51", 0)
    any_video = [write_moving_square(tmp_path / "any.mp4", rng)]
    likely = [ranking(checkpoint, any_video, names)[0][:2] for names in classes.values()]
    truth: dict[Path, str] = {}
    lists = tmp_path / "hmdb51/testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for raw in sorted({name for names in likely for name in names}):
        videos = [
            write_moving_square(tmp_path / "hmdb51" / raw / f"{raw}{i}.avi", rng) for i in range(3)
        ]
        rows = [f"{path.name} {use} " for use, path in enumerate(videos)]
        (lists / f"{raw}_test_split1.txt").write_text("\n".join(rows))
        truth |= dict.fromkeys(videos[1:], raw)

    top1 = {}
    for split, names in classes.items():
        wanted = {path: raw for path, raw in truth.items() if raw in names}
        ranked = ranking(checkpoint, list(wanted), names)
        right = [best[0] == raw for best, raw in zip(ranked, wanted.values(), strict=True)]
        top1[split] = np.mean(right)
    whole, mean = (
        benchmark.summarize(score_models({0: load_checkpoint(checkpoint)}, benchmark)[0])
        for benchmark in (
            ZeroShot(dataset="hmdb51", split=split, mode="zero_shot")
            for split in ("all", tuple(halves))
        )
    )
    of_halves = [top1[half] for half in halves]
    assert 0 < top1["all"] < 1
    assert whole["zero_shot/hmdb51/top1"] == pytest.approx(top1["all"])
    assert whole["zero_shot/hmdb51/num_clips"] == len(truth)
    assert mean["zero_shot/hmdb51/top1"] == pytest.approx(np.mean(of_halves))
    assert mean["zero_shot/hmdb51/top1_std"] == pytest.approx(np.std(of_halves, ddof=1))


def kinetics400(root: Path, split: str, truth: dict[str, str]) -> dict[str, Path]:
    """Ten-second clips in a folder of each split."""
    rows = [f'"{raw}",{name:0>11},0,10,{split}' for name, raw in truth.items()]
    (root / f"{split}.csv").write_text(
        "\n".join(["label,youtube_id,time_start,time_end,split", *rows])
    )
    return {name: root / split / f"{name:0>11}_000000_000010.mp4" for name in truth}


def ssv2(root: Path, split: str, truth: dict[str, str]) -> dict[str, Path]:
    """Numbered clips in one folder; what a template leaves open stands in brackets."""
    rows = [
        {"id": name, "template": raw.replace("something", "[something]")}
        for name, raw in truth.items()
    ]
    name = {"val": "validation"}.get(split, split)
    (root / f"something-something-v2-{name}.json").write_text(json.dumps(rows))
    return {name: root / "20bn-something-something-v2" / f"{name}.webm" for name in truth}


def test_a_command_takes_every_protocol_that_a_file_takes() -> None:
    kinds = get_args(get_args(Benchmark)[0])
    modes = [get_args(kind.model_fields["mode"].annotation) for kind in kinds]
    assert sorted(mode for (mode,) in modes) == sorted(get_args(ProtocolName))


# whether the classes of a first and of a second split are read with their learned context
LEARNED = {
    "zero_shot": (False, False),
    "supervised": (True, True),
    "base_to_novel": (True, False),
    "development": (False, False),
}


@pytest.mark.parametrize("name", get_args(ProtocolName))
def test_every_protocol_scores_the_splits_that_the_file_names(name: str) -> None:
    values = {"dataset": "x", "split": ["a", "b"], "mode": name, "templates": ["a {}"]}
    benchmark = TypeAdapter(Benchmark).validate_python(values)
    assert benchmark.splits == ("a", "b")
    texts = [benchmark.class_texts(split) for split in benchmark.splits]
    assert [text.templates for text in texts] == [("a {}",)] * 2
    assert tuple(text.learned for text in texts) == LEARNED[name]
    assert benchmark.has_new_classes == (not all(LEARNED[name]))


@pytest.mark.parametrize("layout", [kinetics400, ssv2])
def test_supervised_accuracy_is_that_counted_by_hand(
    layout: Callable[..., dict[str, Path]],
    small_backbone: BackboneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, root, rng = layout.__name__, tmp_path / "data", np.random.default_rng(0)
    monkeypatch.setenv(f"VITACLIP_DATA_{name.upper()}", str(root))
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    root.mkdir()
    classes = classes_of(name, 0)
    for split, first in (("train", 0), ("val", 100)):
        for path in layout(root, split, {str(first + i): classes[i] for i in range(4)}).values():
            write_moving_square(path, rng)
    checkpoint = untrained(small_backbone, name, tmp_path / "checkpoint")

    seen = predict(checkpoint, [write_moving_square(tmp_path / "any.mp4", rng)])[0].classes
    spelling = {clean_class_name(raw): raw for raw in classes}
    never = next(raw for raw in classes if clean_class_name(raw) not in seen)
    truth = {str(200 + i): raw for i, raw in enumerate([spelling[name] for name in seen] + [never])}
    paths = layout(root, "val", truth | {"broken": never, "missing": never})
    for number in truth:
        write_moving_square(paths[number], rng)
    paths["broken"].write_bytes(b"no video")

    ranked = {
        p.video: [spelling[name] for name in p.classes]
        for p in predict(checkpoint, [paths[number] for number in truth])
    }
    benchmark = PUBLISHED_BENCHMARKS[name]
    splits = score_models({0: load_checkpoint(checkpoint)}, benchmark)[0]
    metrics = benchmark.summarize(splits)
    found = {key.removeprefix(f"supervised/{name}/"): value for key, value in metrics.items()}
    top1 = np.mean([ranked[str(paths[number])][0] == raw for number, raw in truth.items()])
    top5 = np.mean([raw in ranked[str(paths[number])] for number, raw in truth.items()])
    assert 0 < top1 < top5 < 1
    assert (found["top1"], found["top5"]) == pytest.approx((top1, top5))
    assert (found["num_clips"], found["num_broken"], found["num_missing"]) == (6, 1, 1)
    assert "top1_std" not in found


# folder of the published lists, start of the label files, a video's name
VIFI_CLIP = {
    "hmdb51": ("hmdb_splits", "hmdb_51", "v{}_[x];#(1).avi"),
    "ucf101": ("ucf_splits", "ucf_101", "v_X_g01_c{}.avi"),
    "ssv2": ("ssv2_splits", "ssv2_174", "{}.webm"),
    "kinetics400": ("k400_splits", "kinetics_400", "val/{:0>11}_000000_000010.mp4"),
}


class PublishedHalves:
    """ViFi-CLIP's folders in a data set's own, with a video for each line that is written."""

    def __init__(self, name: str, root: Path, rng: np.random.Generator) -> None:
        folder, labels, self._video = VIFI_CLIP[name]
        self._lists = root / "datasets_splits/base2novel_splits" / folder
        self._labels, self._root, self._rng, self._number = root / "labels" / labels, root, rng, 0
        self._lists.mkdir(parents=True)
        self._labels.parent.mkdir()

    def write_classes(self, half: str, raw_classes: tuple[str, ...]) -> None:
        rows = "".join(f"{label},{raw}\n" for label, raw in enumerate(raw_classes))
        path = self._labels.with_name(f"{self._labels.name}_{half}_labels.csv")
        path.write_text(f"id,name\n{rows}")

    def write_list(self, name: str, labels: list[int]) -> list[Path]:
        """A clip of each label; their files."""
        names = [self._video.format(self._number + i) for i in range(len(labels))]
        self._number += len(names)
        rows = [f"{video} {label}\n" for video, label in zip(names, labels, strict=True)]
        (self._lists / f"{name}.txt").write_text("".join(rows))
        return [
            write_moving_square(self._root / "videos" / Path(name).name, self._rng)
            for name in names
        ]


@pytest.mark.parametrize("name", VIFI_CLIP)
def test_base_to_novel_is_the_harmonic_mean_counted_by_hand(
    name: str, small_backbone: BackboneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, rng, all_classes = tmp_path / "data", np.random.default_rng(0), classes_of(name, 0)
    monkeypatch.setenv(f"VITACLIP_DATA_{name.upper()}", str(root))
    halves = PublishedHalves(name, root, rng)
    # not in the data set's own order
    base, novel = all_classes[5:0:-1], all_classes[20:5:-2]
    halves.write_classes("base", base)
    halves.write_classes("novel", novel)
    halves.write_list("fs_base_s2_train", [*range(5)] * 2)
    halves.write_list("base_val", [0])
    splits = ("base_train_2", "base_val")
    checkpoint = untrained(small_backbone, name, tmp_path / "checkpoint", *splits)
    truth = {}
    # without names predict reads the trained classes, with their learned context
    for half, raw, names in (("base", base, None), ("novel", novel, [*novel])):
        order = [clean_class_name(raw_class) for raw_class in raw]
        [likely] = predict(checkpoint, [write_moving_square(tmp_path / "any.mp4", rng)], names)
        first, second, third = (order.index(name) for name in likely.classes[:3])
        labels = [first, first, second, third] + [first] * (half == "novel")
        found = predict(checkpoint, halves.write_list(f"{half}_val", labels), names)
        right = [order[n] == p.classes[0] for n, p in zip(labels, found, strict=True)]
        truth[half] = float(np.mean(right))
    assert 0 < truth["base"] < 1
    assert 0 < truth["novel"] < 1
    assert truth["base"] != truth["novel"]

    benchmark = BaseToNovel(dataset=name, mode="base_to_novel")
    metrics = benchmark.summarize(score_models({0: load_checkpoint(checkpoint)}, benchmark)[0])
    told = {key.removeprefix(f"base_to_novel/{name}/"): value for key, value in metrics.items()}
    assert told["base_top1"] == pytest.approx(truth["base"])
    assert told["novel_top1"] == pytest.approx(truth["novel"])
    mean = 2 * truth["base"] * truth["novel"] / (truth["base"] + truth["novel"])
    assert told["top1"] == pytest.approx(mean)
    assert told["top1_ci95_low"] < mean < told["top1_ci95_high"]
    assert (told["num_clips"], told["num_broken"], told["num_missing"]) == (9, 0, 0)
    assert "top1_std" not in told
