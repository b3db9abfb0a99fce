"""Checkpoints from elsewhere: whatever they say, one line, no hang and no memory; they decide the
model only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitaclip.__main__ import main
from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import MAX_INFO_BYTES, CurvePoint, Progress, read_info
from vitaclip.class_names import MAX_CLASSES
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.errors import CheckpointError, InputError
from vitaclip.methods.build import build_model


@pytest.fixture(scope="module")
def good(small_backbone: BackboneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    config = TrainConfig(backbone=small_backbone)
    save_checkpoint(folder, build_model(config, ["walk", "run"]), config, Progress())
    return folder


def copy(good: Path, folder: Path) -> Path:
    """A second folder of the same tensors, whose ``checkpoint.json`` is a file of its own."""
    folder.mkdir()
    for path in good.glob("*.safetensors"):
        os.link(path, folder / path.name)
    (folder / "checkpoint.json").write_bytes((good / "checkpoint.json").read_bytes())
    return folder


def changed(folder: Path, changes: dict[str, Any]) -> None:
    """Sets fields of ``checkpoint.json`` by their dotted names."""
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(content))


DEEP = 200_000
CONTENTS: dict[str, bytes] = {
    "list": b"[]",
    "null": b"null",
    "text": b'"text"',
    "number": b"7",
    "true": b"true",
    "empty": b"",
    "blank": b" ",
    "no JSON": b"{schema",
    "NaN": b"NaN",
    "no UTF-8": b"\xff\xfe{}",
    "UTF-16": "{}".encode("utf-16"),
    "deep list": b"[" * DEEP,
    "closed deep list": b"[" * DEEP + b"]" * DEEP,
    "deep dict": b'{"a":' * DEEP,
    "deep grad scaler": b'{"schema_version":1,"progress":{"grad_scaler":{"a":'
    + b"[" * DEEP
    + b"]" * DEEP
    + b"}}}",
    "long number": b'{"schema_version": ' + b"9" * 10**6 + b"}",
    **{
        f"{number} {kind}": head + item * number + tail
        for number in (900_000, 2_700_000)
        for kind, head, item, tail in (
            ("names", b'{"schema_version":1,"class_names":[', b"1,", b"1]}"),
            ("metrics", b'{"schema_version":1,"progress":{"history":[{', b'"":"",', b'"":""}]}}'),
            ("epochs", b'{"schema_version":1,"progress":{"history":[', b"1,", b"1]}}"),
            ("unknown fields", b"{", b'"":[],', b'"":[]}'),
            ("lists", b"[", b"[],", b"[]]"),
        )
    },
    "too large": b" " * (MAX_INFO_BYTES + 1),
}
READ_ALL = """
import json, os, resource, sys
from pathlib import Path
from vitaclip.checkpoint_info import read_info
def used(): usage = resource.getrusage(resource.RUSAGE_SELF); return usage.ru_utime, usage.ru_maxrss
for folder in map(Path, sys.argv[1:]):
    if os.fork() == 0:
        seconds, kilobytes = used()
        try: answer = str(read_info(folder))
        except Exception as error: answer = f"{type(error).__name__} {error}"
        after = used()
        row = (answer, after[0] - seconds, after[1] - kilobytes)
        print(json.dumps({folder.name: row}), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, int]]:
    """What reading each content gave, its seconds and its kilobytes, in a process of its own."""
    root = tmp_path_factory.mktemp("contents")
    for kind, content in CONTENTS.items():
        (root / kind).mkdir()
        (root / kind / "checkpoint.json").write_bytes(content)
    command = [sys.executable, "-c", READ_ALL, *(str(root / kind) for kind in CONTENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {
        kind: row for line in done.stdout.splitlines() for kind, row in json.loads(line).items()
    }


@pytest.mark.parametrize("kind", CONTENTS)
def test_content_that_is_no_checkpoint(
    kind: str, answers: dict[str, tuple[str, float, int]]
) -> None:
    answer, seconds, kilobytes = answers[kind]
    assert answer.startswith("CheckpointError")
    assert "checkpoint.json" in answer
    assert len(answer.splitlines()) == 1
    assert len(answer) < 500
    assert seconds < 10
    assert kilobytes < 10**6


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = (
    "schema_version",
    "config",
    "class_names",
    "backbone_sha256",
    "progress",
    "tensors",
    "config.backbone",
    "config.backbone.name",
    "config.backbone.pretrained",
    "config.backbone.image_size",
    "config.prompts",
    "config.prompts.num_global",
    "config.prompts.depth",
    "config.prompts.global_layers",
    "config.text.num_context",
    "config.text.init",
    "config.text.depth",
    "config.data.num_frames",
    "config.seed",
    "config.precision",
    "progress.history",
    "progress.curve",
    "progress.grad_scaler",
    "tensors.learned",
    "tensors.learned.name",
    "tensors.learned.sha256",
)


@given(field=st.sampled_from(FIELDS), value=json_values)
def test_a_field_of_another_kind(
    field: str, value: object, good: Path, tmp_path_factory: Any
) -> None:
    folder = copy(good, tmp_path_factory.getbasetemp() / "one")
    try:
        changed(folder, {field: value})
        with contextlib.suppress(CheckpointError, InputError):
            load_model(folder)
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


HUGE = {
    "config.prompts.num_global": 10**9,
    "config.prompts.depth": 10**9,
    "config.prompts.local_layers": [0, 10**9],
    "config.text.num_context": 10**9,
    "config.text.depth": 10**9,
    "config.text.init": "word " * 10**5,
    "config.data.num_frames": 10**9,
    "config.data.num_workers": 10**5,
    "config.data.stride": 10**12,
    "config.data.limit": 10**80,
    "config.data.augment.rand_augment": "m99999-n99999",
    "config.backbone.image_size": 10**6,
    "config.backbone.name": "x" * 10**6,
    "config.backbone.pretrained": "x" * 10**6,
    "config.validation.num_temporal_views": 10**9,
    "config.validation.batch_size": 10**12,
    "config.batch_size": 10**12,
    "config.micro_batch_size": 10**12,
    "config.num_threads": 10**9,
    "config.epochs": 10**80,
    "config.seed": 10**30,
    "class_names": ["x"] * (MAX_CLASSES + 1),
}


@pytest.mark.parametrize("field", HUGE)
def test_what_asks_for_too_much_is_refused_by_its_name(
    field: str, good: Path, tmp_path: Path
) -> None:
    folder = copy(good, tmp_path / "copy")
    changed(folder, {field: HUGE[field]})
    with pytest.raises(CheckpointError, match=field.removeprefix("config.")) as error:
        load_model(folder)
    assert len(str(error.value)) < 500


FITS_NO_FILE: dict[str, dict[str, Any]] = {
    "prompts": {"config.prompts.num_global": 1024},
    "frames": {"config.data.num_frames": 1024},
    "contexts": {
        "class_names": [f"name {i}" for i in range(MAX_CLASSES)],
        "config.text.num_context": 60,
    },
    "no prompts": {"config.prompts.num_global": 0},
    "deep text": {"config.text.depth": 2},
}


@pytest.mark.parametrize("kind", FITS_NO_FILE)
def test_tensors_decide_before_anything_is_built(
    kind: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(good, tmp_path / "copy")
    changed(folder, FITS_NO_FILE[kind])
    monkeypatch.setattr("vitaclip.checkpoint.build_model", None)
    with pytest.raises(CheckpointError, match=r"learned-.*tensors that do not fit its config"):
        load_model(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("config.backbone.name", "hf-hub:someone/model", "backbone.name"),
        ("config.backbone.name", "local-dir:/etc", "backbone.name"),
        ("config.backbone.name", "", "backbone.name"),
        ("config.backbone.name", "RN50", "no CLIP ViT"),
        ("config.backbone.pretrained", "x/" * 2000, "no file and no tag"),
        ("config.backbone.pretrained", "x" * 4000, "no file and no tag"),
        ("config.backbone.pretrained", "nul\0", "no file and no tag"),
        ("config.backbone.pretrained", "/dev/zero", "no such weights file"),
        ("config.text.depth", 3, "text.depth: found 3"),
        (
            "class_names",
            ["brush_hair", "brush hair"],
            "checkpoint.json, name 2: class 'brush hair' stands already",
        ),
        ("class_names", ["walk", " "], "checkpoint.json, name 2: class name ' ' holds no word"),
    ],
)
def test_models_that_cannot_be(
    field: str,
    value: object,
    message: str,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy(good, tmp_path / "copy")
    changed(folder, {field: value})
    monkeypatch.setattr("socket.socket.connect", None)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def folder_in_place(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [folder_in_place, pipe, dangling])
def test_a_checkpoint_json_that_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "checkpoint.json")
    with pytest.raises(CheckpointError, match=r"checkpoint\.json"):
        read_info(tmp_path)


@pytest.mark.parametrize("folder", ["x" * 5000, "nowhere", "/dev/null", "nul\0"])
def test_a_folder_that_is_none(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", folder, "video.mp4"]) == 1
    assert "no checkpoint.json in it" in capsys.readouterr().err


def test_how_this_machine_is_used_is_not_taken_from_a_checkpoint(
    good: Path, tmp_path: Path
) -> None:
    folder = copy(good, tmp_path / "copy")
    machine = {
        "config.compile": True,
        "config.activation_checkpointing": True,
        "config.num_threads": 64,
        "config.data.num_workers": 200,
        "config.data.decoder": "decord",
        "config.data.limit": 1,
        "config.data.dataset": "other",
        "config.batch_size": 1000,
        "config.micro_batch_size": 1000,
        "config.validation.batch_size": 100_000,
    }
    changed(folder, machine)
    model, config = load_model(folder)
    assert not model.compile_layers
    assert not model.activation_checkpointing
    assert config == load_model(good)[1] == read_info(good).config.of_model()
    deciding = {
        "config.precision": "bf16",
        "config.data.num_frames": 8,
        "config.data.stride": 3,
        "config.data.sampling": "uniform",
    }
    changed(folder, deciding)
    model, config = load_model(folder)
    assert model.precision == "bf16"
    assert (config.data.stride, config.data.sampling) == (3, "uniform")


def test_the_longest_training_can_be_read_again(good: Path, tmp_path: Path) -> None:
    folder = copy(good, tmp_path / "copy")
    info = read_info(folder)
    epochs = TrainConfig.model_fields["epochs"].metadata[1].le
    metrics = {f"a/rather_long_name_{i}": 0.12345678901234567 for i in range(20)}
    curve = tuple(
        CurvePoint(epoch, step, 0.12345678901234567, 0.00012345678901234567)
        for epoch in range(epochs)
        for step in range(50)
    )
    history = tuple({"epoch": epoch, **metrics} for epoch in range(1, epochs + 1))
    progress = Progress(epoch=epochs, history=history, curve=curve)
    text = info.model_copy(update={"progress": progress}).model_dump_json(indent=1)
    (folder / "checkpoint.json").write_text(text)
    assert read_info(folder).progress.epoch == epochs
