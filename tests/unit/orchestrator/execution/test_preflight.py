"""What any trial would refuse at its start is refused before anything starts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.config import CategoricalDistribution, Distribution, IntDistribution, Scalar
from orchestrator.execution.corners import corners
from orchestrator.execution.preflight import dataset_splits, preflight
from orchestrator.settings import Settings
from testing.motions import MOTIONS
from testing.study_fixtures import study_config
from vitaclip.config import BackboneConfig
from vitaclip.errors import InputError

DEPTHS = {"type": "int", "low": 0, "high": 2}


@pytest.fixture
def check(
    small_backbone: BackboneConfig,
    motion_dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))

    def check(space: dict[str, object], benchmarks: Sequence[object] = (), **train: object) -> None:
        values = {
            "backbone": small_backbone.model_dump(),
            "data": {"dataset": motion_dataset},
            "epochs": 1,
            "batch_size": 8,
        }
        config = study_config(train=values | train, search_space=space, benchmarks=benchmarks)
        preflight(config, Settings())

    return check


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"method": "frozen_clip"}, "epochs: found 1, frozen_clip trains nothing; allowed is 0"),
        ({"text": {"depth": 3}}, "text.depth: found 3, allowed is at most 2"),
        ({"text": {"init": "a video"}}, "text.init: 'a video' has 2 tokens"),
        ({"prompts": {"depth": 3}}, "prompts.depth: found 3, allowed is at most 2"),
        ({"prompts": {"local_layers": [0, 3]}}, "prompts.local_layers: found 3"),
    ],
)
def test_what_a_method_refuses_is_refused_before_the_start(check, train, message) -> None:
    space = {"optimizer.weight_decay": {"type": "categorical", "choices": [0.0, 0.1]}}
    with pytest.raises(InputError, match=message) as caught:
        check(space, **train)
    assert "the search space" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"method.name": {"type": "categorical", "choices": ["vita_clip", "frozen_clip"]}},
            'epochs: found 1, frozen_clip .*draws method.name="frozen_clip"',
        ),
        (
            {"prompts.depth": DEPTHS | {"high": 3}},
            r"prompts.depth: found 3, allowed is at most 2.*draws prompts.depth=3\)",
        ),
        (
            {"text.init": {"type": "categorical", "choices": [None, "a video of"]}},
            'text.init: .* has 3 tokens, text.num_context is 8.*draws text.init="a video of"',
        ),
    ],
)
def test_what_a_space_would_draw_is_refused_too(check, space, message) -> None:
    with pytest.raises(InputError, match=message):
        check(space)


def test_classes_that_leave_no_room_are_refused(
    check, motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(os.environ[f"VITACLIP_DATA_{motion_dataset.upper()}"], tmp_path / "long")
    for name in ("classes.txt", "train.csv", "val.csv"):
        path = tmp_path / "long" / name
        path.write_text(path.read_text().replace("moving left", "moving to the left and away"))
    monkeypatch.setenv("VITACLIP_DATA_LONG", str(tmp_path / "long"))
    lengths = {"text.num_context": {"type": "int", "low": 2, "high": 70}}
    with pytest.raises(InputError, match="79 tokens with 70 .*allowed are 77.*num_context=70"):
        check(lengths, data={"dataset": "long"})


def test_what_a_space_draws_under_conditions_only_is_allowed(check) -> None:
    method = {"type": "categorical", "choices": ["vita_clip", "frozen_clip"]}
    epochs = {"type": "int", "low": 1, "high": 2, "when": {"method.name": "vita_clip"}}
    check({"method.name": method, "epochs": epochs, "prompts.depth": DEPTHS}, epochs=0)


def choices(*values: Scalar, **when: Scalar) -> dict[str, object]:
    return {"type": "categorical", "choices": values, "when": when}


def test_clips_that_are_too_few_or_of_other_classes_are_refused(
    check, motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(os.environ[f"VITACLIP_DATA_{motion_dataset.upper()}"], tmp_path / "few")
    rows = (root / "train.csv").read_text().splitlines()
    (root / "few_shot_1.csv").write_text("\n".join(rows[:4]))
    (root / "few_shot_2.csv").write_text("\n".join(rows[:8]))
    (root / "base_train.csv").write_text(rows[0])
    (root / "base_train_classes.txt").write_text(rows[0].rpartition(",")[2])
    monkeypatch.setenv("VITACLIP_DATA_FEW", str(root))
    data = {"dataset": "few"}
    check({"data.train_split": choices("few_shot_2", "train")}, data=data)
    with pytest.raises(
        InputError, match=r'batch_size: found 8, allowed 1..4 .*draws data.train_split="few_shot_1"'
    ):
        check({"data.train_split": choices("few_shot_2", "few_shot_1")}, data=data)
    with pytest.raises(InputError, match="'base_train' .1 classes. and 'val' .4. have different"):
        check({"data.train_split": choices("train", "base_train")}, data=data)
    with pytest.raises(InputError, match="no annotations of split 'few_shot_4'"):
        check({"data.train_split": choices("train", "few_shot_4")}, data=data)
    with pytest.raises(InputError, match="batch_size: found 32, allowed 1..24 .*batch_size=32"):
        check({"batch_size": choices(8, 32)}, data=data)


def test_a_benchmark_of_classes_that_a_trial_does_not_learn_is_refused(
    check, motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(os.environ[f"VITACLIP_DATA_{motion_dataset.upper()}"], tmp_path / "few")
    classes = (root / "classes.txt").read_text().splitlines()
    rows = (root / "train.csv").read_text().splitlines()
    for part, names in (("base", classes[:2]), ("novel", classes[2:])):
        for split in (f"{part}_train", f"{part}_val"):
            (root / f"{split}_classes.txt").write_text("\n".join(names))
            kept = [row for row in rows if row.rpartition(",")[2] in names]
            (root / f"{split}.csv").write_text("\n".join(kept))
    monkeypatch.setenv("VITACLIP_DATA_HALVES", str(root))
    space = {"optimizer.weight_decay": choices(0.0, 0.1)}
    benchmark = {"dataset": "halves", "mode": "base_to_novel"}
    data = {"dataset": "halves", "train_split": "base_train", "val_split": "base_val"}
    check(space, [benchmark], data=data)
    with pytest.raises(InputError, match="split 'val': has 2 classes that halves/base_train"):
        check(space, [benchmark | {"split": ["base_val", "val"]}], data=data)
    with pytest.raises(
        InputError,
        match=r"base_to_novel/halves, split 'base_val': asks for 2 .*halves/train trains 4",
    ):
        check(space, [benchmark], data={"dataset": "halves"})
    with pytest.raises(
        InputError, match="supervised/halves, split 'novel_val'.*take mode zero_shot"
    ):
        check(space, [benchmark | {"split": "novel_val", "mode": "supervised"}], data=data)


def test_a_class_without_description_is_refused(check, motion_dataset: str, tmp_path: Path) -> None:
    path, space = tmp_path / "found.json", {"optimizer.weight_decay": choices(0.0, 0.1)}
    benchmark = {"dataset": motion_dataset, "mode": "zero_shot", "split": ["val", "train"]}
    described = [benchmark | {"descriptions": str(path)}]
    texts: dict[str, object] = {name: f"A square is {name}." for name in MOTIONS}
    path.write_text(json.dumps(texts))
    check(space, described)
    path.write_text(json.dumps(texts | {"moving up": ["up", "a square " * 40]}))
    with pytest.raises(InputError, match=r"found.json: .*'a square .*82 tokens, allowed are 77"):
        check(space, described)
    del texts["moving up"]
    path.write_text(json.dumps(texts))
    with pytest.raises(
        InputError, match=r"found.json: describes 3 classes, but not 'moving up' of motions/val"
    ):
        check(space, described)
    path.unlink()
    with pytest.raises(InputError, match="found.json: there is no such file of descriptions"):
        check(space, described)


def test_all_splits_that_trials_may_read_are_looked_at() -> None:
    space = {
        "data.dataset": choices("ucf101", "quickstart"),
        "data.train_split": choices("few_shot_2", "few_shot_4", **{"data.dataset": "ucf101"}),
        "data.development": choices(None, "development", **{"data.dataset": "quickstart"}),
        "optimizer.lr": {"type": "float", "low": 0.1, "high": 0.2},
    }
    found = dataset_splits(study_config(search_space=space))
    assert sorted(found) == [
        ("quickstart", "development"),
        ("quickstart", "train"),
        ("quickstart", "val"),
        ("quickstart", "zero_shot"),
        ("ucf101", "few_shot_2"),
        ("ucf101", "few_shot_4"),
        ("ucf101", "val"),
    ]


def whole(low: int, high: int, **when: Scalar) -> Distribution:
    return IntDistribution(type="int", low=low, high=high, when=when)


def test_corners_have_both_ends_every_choice_and_what_conditions_name() -> None:
    kind = CategoricalDistribution(type="categorical", choices=("x", "y", "z"))
    space = {"deep": whole(0, 9, kind="y", wide=5), "kind": kind, "wide": whole(1, 8), "far": kind}
    found = corners(space, lambda key: key == "deep", most=100)
    plain = [{"kind": k, "wide": w} for k in "xyz" for w in (1, 8, 5) if (k, w) != ("y", 5)]
    deep = [{"kind": "y", "wide": 5, "deep": d} for d in (0, 9)]
    assert sorted(found, key=str) == sorted([*plain, *deep], key=str)


def test_of_many_corners_a_sample_is_looked_at_that_is_always_the_same() -> None:
    space = {f"p{number}": whole(0, 1) for number in range(200)}
    found = corners(space, lambda key: True, most=50)
    assert len(found) == 50
    assert found == corners(space, lambda key: True, most=50)
    assert all({point[key] for point in found} == {0, 1} for key in space)
