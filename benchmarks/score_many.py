"""``python -m benchmarks.score_many``: what scoring many checkpoints in one pass costs against
scoring one.

Makes Kinetics-like files (340x256, 10 s), takes untrained prompts on the quickstart's tiny CLIP, so
that decoding dominates as it does where the model runs on a GPU, and scores 1 and 8 of them without
a frame cache; then the 8 with blends with the frozen CLIP beside each. Prints seconds of processor
time (medians), so that other programs on the machine disturb little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.data import write_scene
from orchestrator.evaluation.benchmark import LoadedModel, score_models
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from vitaclip.config import BackboneConfig, TrainConfig
from vitaclip.evaluation import frozen_clip
from vitaclip.methods.build import build_model

CLASSES = ("walking", "running", "jumping")
TARGET = 2.5  # 8 checkpoints cost less than this many times one
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BLENDS_TARGET = 1.5  # with blends, less than this many times without


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_many", description=__doc__)
    parser.add_argument("--videos", type=int, default=6, help="files to make (default: 6)")
    parser.add_argument(
        "--checkpoints", type=int, default=8, help="scored in one pass (default: 8)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default: 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"VITACLIP_DATA_SCENES": folder, "VITACLIP_FRAME_CACHE_GB": "0"}
        _make_dataset(Path(folder), args.videos)
        models: dict[object, LoadedModel] = {
            seed: _untrained(seed) for seed in range(args.checkpoints)
        }
        single = _seconds({0: models[0]}, args.repeats)
        many = _seconds(models, args.repeats)
        blended = _seconds(models | _blends(models), args.repeats)
    print(
        f"1 checkpoint: {single:.2f} s, {args.checkpoints} checkpoints: {many:.2f} s of processor "
        f"time, {args.videos} videos: {many / single:.2f} times (target: below {TARGET})"
    )
    print(
        f"with {len(ALPHAS)} blends of each: {blended:.2f} s, {blended / many:.2f} times "
        f"(target: below {BLENDS_TARGET})"
    )


def _make_dataset(folder: Path, num_videos: int) -> None:
    for seed in range(num_videos):
        write_scene(folder / f"{seed}.mp4", seed)
    (folder / "test.csv").write_text(
        "\n".join(f"{seed}.mp4,{seed % 3}" for seed in range(num_videos))
    )
    (folder / "classes.txt").write_text("\n".join(CLASSES))


def _untrained(seed: int) -> LoadedModel:
    backbone = {"name": "quickstart-tiny", "pretrained": "quickstart"}
    config = TrainConfig.model_validate(
        {"seed": seed, "backbone": backbone, "data": {"dataset": "scenes"}}
    )
    return LoadedModel(build_model(config, CLASSES), config.data)


def _blends(models: Mapping[object, LoadedModel]) -> dict[object, LoadedModel]:
    any_model = next(iter(models.values()))
    backbone = BackboneConfig(name="quickstart-tiny", pretrained="quickstart")
    clip = frozen_clip(backbone, any_model.data.num_frames)
    return {
        (key, alpha): replace(loaded, clip=clip, alpha=alpha)
        for key, loaded in models.items()
        for alpha in ALPHAS
    }


def _seconds(models: Mapping[object, LoadedModel], repeats: int) -> float:
    benchmark = ZeroShot(dataset="scenes", split="test", mode="zero_shot")
    times = []
    for _ in range(repeats):
        started = time.process_time()
        score_models(models, benchmark)
        times.append(time.process_time() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
