"""Tells how long a training step takes at a device's limit, and which kernels that time goes to.

The kernels are those of the real step, recorded on tensors without memory. ``--device cpu``
measures this CPU, predicts the step on it, and sets the step's measured time beside that.

    python -m benchmarks.roofline --device h100 --classes 400 --batch 64 --precision bf16
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from open_clip.model import CLIP

from benchmarks.roofline.devices import PRESETS, Device, measure_cpu
from benchmarks.roofline.fusion import fuse
from benchmarks.roofline.kernels import Step, record_step
from benchmarks.roofline.tables import (
    costs,
    print_costliest,
    print_costs,
    share_of_peak,
    step_seconds,
)
from vitaclip.clip_config import read_clip_config
from vitaclip.config import TrainConfig
from vitaclip.data.formats import CLASS_LISTS
from vitaclip.data.manifest import read_class_list
from vitaclip.methods.build import build_model, builder
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone, freeze
from vitaclip.optimizer import accumulate_gradients

GIB = 2**30
_REPEATS = 3


def main() -> None:
    """Entry point."""
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = _config(args)
    names = read_class_list(CLASS_LISTS / "kinetics400.txt")[: args.classes]
    step = record_step(
        lambda: _model_of_shapes(config, names),
        num_clips=args.batch,
        micro_batch_size=config.micro_batch_size,
    )
    device = _device(args)
    report(args, config, step, device)
    if args.device == "cpu":
        compare(config, names, args.batch, step, device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="a study or a training; default: paper")
    parser.add_argument("--device", choices=[*PRESETS, "cpu"], default="h100")
    parser.add_argument("--flops", type=float, help="FLOP/s of the device, instead of the preset's")
    parser.add_argument("--bytes", type=float, help="bytes/s of the device, likewise")
    parser.add_argument("--classes", type=int, default=400, help="the first of Kinetics-400's")
    parser.add_argument("--batch", type=int, default=64, help="clips of a step on this device")
    parser.add_argument("--micro-batch", type=int, help="clips that pass through it at once")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--compile", action="store_true", help="layers are compiled")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args()


def _config(args: argparse.Namespace) -> TrainConfig:
    found: dict[str, Any] = yaml.safe_load(args.file.read_text()) if args.file else {}
    given = {
        "precision": args.precision,
        "compile": args.compile,
        "micro_batch_size": args.micro_batch,
    }
    return TrainConfig.model_validate(found.get("train", found) | given)


def _device(args: argparse.Namespace) -> Device:
    preset = measure_cpu() if args.device == "cpu" else PRESETS[args.device]
    return preset.with_limits(args.flops, args.bytes)


def _model_of_shapes(config: TrainConfig, names: tuple[str, ...]) -> VideoModel:
    clip = freeze(CLIP(**read_clip_config(config.backbone)))
    model = builder(config.method.name)(Backbone(clip, sha256=""), config, names)
    model.hold_frozen_as_computed()
    return model


def report(args: argparse.Namespace, config: TrainConfig, step: Step, device: Device) -> None:
    """Prints what the step costs on the device."""
    kernels = fuse(step.kernels) if config.compile else step.kernels
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    print(f"{config.backbone.name}, {config.method.name}, {config.data.num_frames} frames, "
          f"{args.classes} classes, {args.batch} clips by {config.micro_batch_size or args.batch}, "
          f"{config.precision}{', compiled' if config.compile else ''}; {device.name}")  # fmt: skip
    print_costs(kernels, device)
    print_costliest(kernels, device)
    seconds = step_seconds(kernels, device)
    total = costs(kernels, device)["all", "all"]
    print(f"estimated: {seconds * 1e3:.0f} ms a step ({total.seconds * 1e3:.0f} without launches), "
          f"{total.flops / 1e12:.1f} TFLOP, {share_of_peak(kernels, device, dtype):.1%} of peak, "
          f"{args.batch / seconds:.0f} clips/s, {step.kept_bytes / GIB:.1f} GiB kept for the "
          "backward pass")  # fmt: skip


def compare(
    config: TrainConfig, names: tuple[str, ...], num_clips: int, step: Step, device: Device
) -> None:
    """Prints the step's measured time on this CPU beside the predicted one."""
    backbone = config.backbone.model_copy(update={"pretrained": "random"})
    model = build_model(config.model_copy(update={"backbone": backbone}), names).placed_on(
        torch.device("cpu")
    )
    size = model.image_size
    video = torch.randint(256, (num_clips, 3, model.num_frames, size, size), dtype=torch.uint8)
    labels = torch.randint(len(names), (num_clips,))
    seconds = []
    for _ in range(_REPEATS):
        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        accumulate_gradients(model, video, labels, micro_batch_size=config.micro_batch_size)
        seconds.append(time.perf_counter() - started)
    predicted = step_seconds(fuse(step.kernels) if config.compile else step.kernels, device)
    print(f"measured: {min(seconds):.2f} s (best of {[round(s, 2) for s in seconds]}), predicted "
          f"{predicted:.2f} s: {predicted / min(seconds):.0%} of it")  # fmt: skip


if __name__ == "__main__":
    main()
