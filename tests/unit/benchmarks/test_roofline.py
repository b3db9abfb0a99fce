"""The cost model of a training step: what it records, and what fusing leaves of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from open_clip.model import CLIP

from benchmarks.roofline import __main__ as command
from benchmarks.roofline.devices import Device
from benchmarks.roofline.fusion import fuse
from benchmarks.roofline.kernels import Kernel, Kind, Step, record_step
from benchmarks.roofline.tables import costs, share_of_peak, step_seconds
from vitaclip.clip_config import read_clip_config
from vitaclip.config import BackboneConfig, MethodConfig, ModelConfig
from vitaclip.cost import clips_per_second, flops_per_clip
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.backbone import Backbone, freeze

DEVICE = Device("a device", {torch.float32: 1e12}, bytes_per_s=1e9, launch_s=1e-3)
CLASSES = ("a", "b c", "d e f")


def step_of(
    backbone: BackboneConfig, num_clips: int, micro_batch_size: int | None = None, **changes: Any
) -> Step:
    config = ModelConfig.model_validate(
        {"backbone": backbone.model_dump(), "data": {"num_frames": 4}} | changes
    )

    def make_model() -> VitaCLIP:
        clip = freeze(CLIP(**read_clip_config(backbone)))
        return VitaCLIP(Backbone(clip, sha256=""), config, CLASSES)

    return record_step(make_model, num_clips=num_clips, micro_batch_size=micro_batch_size)


def flops(step: Step, phase: str) -> int:
    return costs(step.kernels, DEVICE)[phase, "all"].flops


def test_each_tower_costs_what_it_computes(small_backbone: BackboneConfig) -> None:
    two, four = step_of(small_backbone, 2), step_of(small_backbone, 4)
    in_halves = step_of(small_backbone, 4, 2)
    for phase in ("vision forward", "vision backward"):
        # Global prompts are computed once, whatever the number of clips.
        assert 1.9 < flops(four, phase) / flops(two, phase) <= 2
        assert flops(in_halves, phase) == 2 * flops(two, phase)
    for phase in ("text forward", "text backward"):
        assert flops(four, phase) == flops(two, phase) == flops(in_halves, phase) > 0
    assert in_halves.kept_bytes == pytest.approx(two.kept_bytes, rel=1e-3)
    assert two.kept_bytes < 0.7 * four.kept_bytes


def test_the_products_of_a_frozen_block_are_counted_by_hand(
    small_backbone: BackboneConfig,
) -> None:
    """Two layers of width 32 over 17 tokens; the last one computes the class token alone."""
    prompts = {"num_global": 0, "local": False, "summary": False, "time_embedding": False}
    step = step_of(small_backbone, 1, prompts=prompts)
    frames, tokens, width = 4, 17, 32
    patches = 2 * frames * 16 * (3 * 8 * 8) * width
    whole = 2 * frames * tokens * width * (3 + 1 + 8) * width
    last = 2 * frames * width * width * (2 * tokens + 1 + 1 + 8)
    projection = 2 * frames * width * 16
    products = costs(step.kernels, DEVICE)["vision forward", "matrix product"].flops
    assert products == patches + whole + last + projection


def test_compiled_layers_move_less_and_compute_the_same(small_backbone: BackboneConfig) -> None:
    step = step_of(small_backbone, 2, compile=True)
    before, after = (costs(kernels, DEVICE) for kernels in (step.kernels, fuse(step.kernels)))
    assert after["all", "all"].flops == before["all", "all"].flops
    assert after["all", "all"].num_bytes < 0.9 * before["all", "all"].num_bytes
    assert after["all", "all"].kernels < 0.8 * before["all", "all"].kernels
    eager = step_of(small_backbone, 2)
    assert fuse(eager.kernels) == eager.kernels


def kernel(kind: Kind, reads: list[int], writes: list[int], name: str = "mul") -> Kernel:
    return Kernel(
        "vision forward",
        name,
        kind,
        (8,),
        torch.float32,
        reads=dict.fromkeys(reads, 100),
        writes=dict.fromkeys(writes, 100),
        layer=1,
    )


def test_what_is_fused_reads_once_and_writes_what_is_read_later() -> None:
    add = kernel("element-wise", [1, 2], [3])
    norm = kernel("LayerNorm", [3], [4])
    product = kernel("matrix product", [4], [5], "mm")
    later = kernel("element-wise", [3, 5], [6])
    last = kernel("matrix product", [6], [7], "mm")
    fused, first, second, third = fuse([add, norm, product, later, last])
    assert fused.reads == {1: 100, 2: 100}
    assert fused.writes == {3: 100, 4: 100}  # what is between them is read by others, too
    assert first is product
    # It needs the product, which needs the norm: it cannot be one with them.
    assert second.reads == {3: 100, 5: 100}
    assert third is last


def test_kernels_with_the_same_input_are_one() -> None:
    found = fuse([kernel("cast", [1], [2]), kernel("element-wise", [1], [3])])
    assert [(k.reads, k.writes) for k in found] == [({1: 100}, {})]


def test_a_step_takes_the_devices_time_or_the_hosts() -> None:
    moving = kernel("copy", [1], [2])
    assert moving.seconds(DEVICE) == 200 / 1e9
    assert step_seconds([moving], DEVICE) == 1e-3  # its launch takes longer
    heavy = Kernel("head", "mm", "matrix product", (8,), torch.float32, flops=10**12)
    assert step_seconds([moving, heavy], DEVICE) == pytest.approx(1.001)
    assert share_of_peak([moving, heavy], DEVICE, torch.float32) == pytest.approx(1 / 1.001)


def test_the_command_reads_a_study(
    small_backbone: BackboneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = tmp_path / "study.yaml"
    train = {"backbone": small_backbone.model_dump(), "method": "lora", "data": {"num_frames": 4}}
    study.write_text(yaml.safe_dump({"name": "x", "train": train}))
    args = f"{study} --batch 2 --micro-batch 1 --classes 5 --precision bf16 --bytes 1e12 --compile"
    monkeypatch.setattr(sys, "argv", ["roofline", *args.split()])
    command.main()
    shown = capsys.readouterr().out
    assert "ViT-test-small, lora, 4 frames, 5 classes, 2 clips by 1, bf16, compiled; H100" in shown
    assert "the 10 costliest kernels" in shown
    assert "clips/s" in shown
    monkeypatch.setattr(
        sys, "argv", ["roofline", *args.split(), "--device", "cpu", "--precision", "fp32"]
    )
    monkeypatch.setattr(command, "_REPEATS", 1)
    monkeypatch.setattr(command, "measure_cpu", lambda: DEVICE)
    monkeypatch.setattr(sys, "argv", [arg for arg in sys.argv if arg != "--compile"])
    command.main()
    assert "measured: " in capsys.readouterr().out


def test_the_estimate_without_torch_agrees_with_the_kernels() -> None:
    """The estimate counts every token of the last layer, and no prompts."""
    backbone = BackboneConfig(name="ViT-B-32", pretrained="random")
    step = step_of(backbone, 1)
    config = ModelConfig.model_validate(
        {"backbone": backbone.model_dump(), "data": {"num_frames": 4}}
    )
    counted = flops(step, "vision forward") + flops(step, "vision backward")
    assert flops_per_clip(config) == pytest.approx(counted, rel=0.06)
    trained = config.model_copy(update={"method": MethodConfig(name="full_finetune")})
    assert flops_per_clip(trained) == 1.5 * flops_per_clip(config)
    compiled, eager = (
        clips_per_second(config.model_copy(update={"precision": "bf16", "compile": compile_layers}))
        for compile_layers in (None, False)
    )
    assert compiled > eager > clips_per_second(config)
