"""A released checkpoint's tensors that are missing, of other shapes or no tensors: one line, and
nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitaclip.__main__ import main
from vitaclip.checkpoint import save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import BackboneConfig, DataConfig, PromptConfig, TextConfig, TrainConfig
from vitaclip.methods.build import build_model

Entries = dict[str, Tensor]


@pytest.fixture(scope="module")
def entries(small_backbone: BackboneConfig, tmp_path_factory: pytest.TempPathFactory) -> Entries:
    """The ``model`` part of a released file with the small CLIP in it."""
    config = TrainConfig(
        backbone=small_backbone,
        prompts=PromptConfig(num_global=2, cls_proj="released"),
        text=TextConfig(num_context=4),
        data=DataConfig(num_frames=2),
    )
    folder = tmp_path_factory.mktemp("released")
    save_checkpoint(folder / "ours", build_model(config, ["walk", "run"]), config, Progress())
    assert main(["export-checkpoint", str(folder / "ours"), str(folder / "released.pth")]) == 0
    return dict(torch.load(folder / "released.pth", weights_only=True)["model"])


def imported(entries: Entries, folder: Path) -> int:
    torch.save({"model": entries}, folder / "changed.pth")
    return main(
        [
            "import-checkpoint",
            str(folder / "changed.pth"),
            str(folder / "imported"),
            "--classes",
            "walk,run",
            "--backbone",
            "ViT-test-small",
            "--extract-backbone",
            str(folder / "clip.safetensors"),
        ]
    )


def test_the_whole_file_is_imported(entries: Entries, tmp_path: Path) -> None:
    assert imported(entries, tmp_path) == 0


def without(name: str) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        changed = dict(entries)
        del changed[f"module.{name}"]
        return changed

    return change


def shaped(name: str, *shape: int) -> Callable[[Entries], Entries]:
    return lambda entries: entries | {f"module.{name}": torch.zeros(shape)}


CHANGES = {
    "no k_proj": without("visual.blocks.0.attn.k_proj.weight"),
    "k_proj of another width": shaped("visual.blocks.0.attn.k_proj.weight", 32, 5),
    "no logit scale": without("logit_scale"),
    "no time embedding": without("visual.time_embed"),
    "scalar time embedding": shaped("visual.time_embed"),
    "time embedding of another width": shaped("visual.time_embed", 2, 7),
    "scalar global prompts": shaped("visual.global_prompts"),
    "global prompts of more layers": shaped("visual.global_prompts", 9, 2, 32),
    "no local prompts": shaped("visual.blocks.1.local_prompts", 0),
    "scalar local prompts": shaped("visual.blocks.1.local_prompts"),
    "context of one dimension": shaped("prompt_learner.ctx", 4),
    "more context than a text holds": shaped("prompt_learner.ctx", 2, 71, 32),
    "context of three classes": shaped("prompt_learner.ctx", 3, 4, 32),
    "one layer's summary only": without("visual.blocks.1.summary_attn_layer.q_proj.weight"),
    "names of another shape": shaped("prompt_learner.token_suffix", 3),
    "a layer that is not there": shaped("visual.blocks.99999999999.local_prompts", 1, 2, 32),
    "other tensors": lambda entries: {f"layer.{i}": torch.zeros(1) for i in range(5000)},
    "summary without local prompts": without("visual.blocks.0.local_prompts"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_refused(
    change: str, entries: Entries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(CHANGES[change](entries), tmp_path) == 2
    message = capsys.readouterr().err
    assert f"error: {tmp_path}" in message
    assert len(message) < 1000
    assert not (tmp_path / "imported").exists()


def test_a_place_that_cannot_be_written(
    entries: Entries, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(entries, tmp_path) == 0
    for command in (
        ["export-checkpoint", str(tmp_path / "imported"), str(tmp_path / "none" / "out.pth")],
        [
            "convert-backbone",
            str(tmp_path / "clip.safetensors"),
            str(tmp_path / "none" / "out.safetensors"),
        ],
    ):
        assert main(command) == 2
        assert "out" in capsys.readouterr().err
