"""Released checkpoint files into our format and back, by the command, without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unit.vitaclip.model.test_parity import clip_config, forward
from vitaclip.__main__ import main
from vitaclip.checkpoint import load_model
from vitaclip.checkpoint_info import read_info
from vitaclip.model.released import split_released

Record = dict[str, Any]


@pytest.fixture
def released(released_record: Record, tmp_path: Path) -> Path:
    """A file as the released training writes it: DDP's prefixes, and the optimizer's state beside
    the model.
    """
    model = {
        f"module.{name}": tensor.float()
        for name, tensor in released_record["state_dict_f16"].items()
    }
    path = tmp_path / "released.pth"
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 4e-4, "params": [0]}],
    }
    torch.save(
        {"model": model, "optimizer": optimizer, "lr_sched": {"last_epoch": 3}, "next_step": 3},
        path,
    )
    return path


@pytest.fixture
def arguments(released_record: Record, released: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "ViT-test-released.json").write_text(
        json.dumps(clip_config(released_record["config"]))
    )
    open_clip.add_model_config(tmp_path / "ViT-test-released.json")
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(released_record["classes"]))
    return [
        "import-checkpoint", str(released), str(tmp_path / "ours"), "--classes", str(classes),
        "--backbone", "ViT-test-released",
    ]  # fmt: skip


def write_clip(released_record: Record, path: Path, change: Tensor | None = None) -> Path:
    frozen, _ = split_released(
        {name: tensor.float() for name, tensor in released_record["state_dict_f16"].items()}
    )
    if change is not None:
        frozen["visual.proj"] = frozen["visual.proj"] + change
    save_file({name: tensor.contiguous() for name, tensor in frozen.items()}, path)
    return path


def test_there_and_back_without_loss(
    released_record: Record, released: Path, arguments: list[str], tmp_path: Path
) -> None:
    clip = write_clip(released_record, tmp_path / "clip.safetensors")
    assert main([*arguments, "--pretrained", str(clip)]) == 0
    model, config = load_model(tmp_path / "ours")
    assert (config.prompts.num_global, config.text.num_context, config.data.num_frames) == (2, 4, 4)
    outputs = forward(model, released_record)
    torch.testing.assert_close(outputs["logits"], released_record["logits"], atol=1e-4, rtol=0)
    back = tmp_path / "back.pth"
    assert main(["export-checkpoint", str(tmp_path / "ours"), str(back)]) == 0
    wanted = torch.load(released, weights_only=True)["model"]
    found = torch.load(back, weights_only=True)["model"]
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_our_checkpoint_is_small(
    released_record: Record, arguments: list[str], tmp_path: Path
) -> None:
    clip = write_clip(released_record, tmp_path / "clip.safetensors")
    assert main([*arguments, "--pretrained", str(clip)]) == 0
    learned = sum(path.stat().st_size for path in (tmp_path / "ours").glob("learned-*.safetensors"))
    assert learned
    assert learned < 0.1 * clip.stat().st_size
    assert read_info(tmp_path / "ours").class_names == tuple(released_record["classes"])


def test_the_clip_it_holds_can_be_kept(
    released_record: Record, arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--extract-backbone", str(tmp_path / "own.safetensors")]) == 0
    model, _ = load_model(tmp_path / "ours")
    torch.testing.assert_close(
        forward(model, released_record)["logits"], released_record["logits"], atol=1e-4, rtol=0
    )


def test_another_clip_is_refused(
    released_record: Record,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_clip(released_record, tmp_path / "other.safetensors", change=torch.tensor(0.01))
    assert main([*arguments, "--pretrained", str(other)]) == 2
    assert "1 frozen tensors differ" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_other_class_names_are_refused(
    released_record: Record,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = write_clip(released_record, tmp_path / "clip.safetensors")
    swapped = ",".join(
        [
            released_record["classes"][1],
            released_record["classes"][0],
            *released_record["classes"][2:],
        ]
    )
    arguments[arguments.index("--classes") + 1] = swapped
    assert main([*arguments, "--pretrained", str(clip)]) == 2
    assert "class 0 is not 'ride_bike'" in capsys.readouterr().err
    arguments[arguments.index("--classes") + 1] = "a,b"
    assert main([*arguments, "--pretrained", str(clip)]) == 2
    assert "found 2 class names" in capsys.readouterr().err


def test_what_is_no_released_checkpoint_is_refused(
    arguments: list[str], released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(1)}}, released)
    assert main(arguments) == 2
    assert "fc.weight" in capsys.readouterr().err
    released.write_bytes(b"no pickle")
    assert main(arguments) == 2
    assert "reading it failed" in capsys.readouterr().err
