"""The product on a pretended accelerator: nothing is left on the CPU, and no step waits for the
host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from testing.pretended_device import DEVICE, DeviceMismatchError, Traffic, pretended_device
from vitaclip.checkpoint_info import EpochMetrics, read_info
from vitaclip.config import BackboneConfig, DataConfig, EvalConfig, TrainConfig
from vitaclip.config.methods import MethodName
from vitaclip.data.datasets import load_dataset
from vitaclip.evaluation import evaluate, evaluate_clip
from vitaclip.prediction import predict
from vitaclip.released_checkpoint import export_checkpoint
from vitaclip.train import FitResult, TrainingInterruptedError, fit

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")

CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "mixed": {"precision": "mixed", "micro_batch_size": 3},
    "fp16": {"precision": "fp16"},
    "less memory": {
        "activation_checkpointing": True,
        "optimizer": {"clip_grad_norm": 1.0},
        "precision": "bf16",
    },
    "deep unified text": {
        "text": {"num_context": 2, "class_specific": False, "position": "middle", "depth": 2}
    },
    "no text context": {"text": {"num_context": 0}},
    "P_sum as released": {"prompts": {"num_global": 0, "cls_proj": "released"}},
    "regularizers": {
        "method": "full_finetune",
        "regularizers": {"distillation": 1.0, "interpolation": 0.5, "average_from": 0.5},
    },
    **{
        name: {"method": name}
        for name in get_args(MethodName)
        if name not in ("vita_clip", "frozen_clip")
    },
}


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    with pretended_device() as found:
        yield found


def config_of(training: dict[str, Any], **changes: Any) -> TrainConfig:
    own = {"epochs": 2, "prompts": {"num_global": 2}, "text": {"num_context": 2}}
    return TrainConfig.model_validate(training | own | changes)


def without_times(history: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    return [
        {name: value for name, value in epoch.items() if not name.startswith("time/")}
        for epoch in history
    ]


def trained(config: TrainConfig, folder: Path) -> FitResult:
    return fit(config, on_epoch_end=lambda end: end.save(folder / str(end.epoch)))


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_training_computes_on_the_device(
    changes: dict[str, Any], small_training: dict[str, Any], tmp_path: Path, traffic: Traffic
) -> None:
    config = config_of(small_training, **changes)
    whole = trained(config, tmp_path)
    assert {parameter.device for parameter in whole.model.parameters()} == {DEVICE}
    num_steps = 2 * 3
    waits = {place: n for place, n in traffic.waits.items() if "train.py" in place}
    assert waits.pop("tolist @ vitaclip/train.py:_read_step") == num_steps
    # Once an epoch; what else a step waited for would stand here, too.
    assert set(waits) <= {
        "__bool__ @ vitaclip/train.py:_check_weights",
        "item @ vitaclip/train.py:save",  # the scaler's, with a checkpoint
    }
    assert not any("optimizer.py" in place or "methods/" in place for place in traffic.waits)
    resumed = fit(config, resume_from=tmp_path / "1")
    assert without_times(resumed.history) == without_times(whole.history)
    needs_scaler = config.precision == "fp16"
    assert (read_info(tmp_path / "2").progress.grad_scaler is not None) == needs_scaler


def test_its_numbers_are_the_cpus(small_training: dict[str, Any]) -> None:
    config = config_of(small_training)
    on_cpu = fit(config)
    with pretended_device():
        on_device = fit(config)
    for epoch, expected in zip(on_device.history, on_cpu.history, strict=True):
        assert epoch["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-5)
        assert epoch["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-5)
    assert not torch.cuda.is_available()
    assert type(torch.zeros(2)) is torch.Tensor


def on_device(traffic: Traffic) -> bool:
    """Whether clips were sent there since this was asked last."""
    places, traffic.to_device = traffic.to_device, Counter()
    return any("evaluation.py:class_probabilities" in place for place in places)


def test_checkpoints_are_scored_and_predict_on_the_device(
    small_training: dict[str, Any],
    small_backbone: BackboneConfig,
    tmp_path: Path,
    traffic: Traffic,
) -> None:
    trained(config_of(small_training), tmp_path)
    folder, dataset = tmp_path / "2", small_training["data"]["dataset"]
    for mode in ("supervised", "zero_shot"):
        views = EvalConfig(num_temporal_views=2, num_spatial_views=3)
        score = evaluate(folder, dataset=dataset, split="val", mode=mode, views=views)
        assert 0 <= score.top1 <= 1
    data = DataConfig(num_frames=4, stride=2)
    evaluate_clip(small_backbone, dataset=dataset, split="val", data=data, views=EvalConfig())
    video = Path(load_dataset(dataset, "val").clips[0].path)
    assert on_device(traffic)
    assert predict(folder, [video])[0].classes
    assert on_device(traffic)
    assert predict(folder, [video], ["waving", "jumping high"])[0].classes
    assert on_device(traffic)
    export_checkpoint(folder, tmp_path / "released.pth")


def test_a_stopped_training_goes_on_on_the_device(
    small_training: dict[str, Any], tmp_path: Path, traffic: Traffic
) -> None:
    config = config_of(small_training)
    whole = trained(config, tmp_path)
    with pytest.raises(TrainingInterruptedError) as stop:
        fit(config, should_stop=lambda: True)
    # Read one step late.
    assert stop.value.progress.step == 2
    stop.value.save(tmp_path / "stop")
    resumed = fit(config, resume_from=tmp_path / "stop")
    assert without_times(resumed.history) == without_times(whole.history)


def test_processes_that_decode_feed_the_device(
    small_training: dict[str, Any], traffic: Traffic
) -> None:
    data = small_training["data"] | {"num_workers": 2}
    alone = fit(config_of(small_training))
    fed = fit(config_of(small_training, data=data))
    assert without_times(fed.history) == without_times(alone.history)


def test_tensors_of_two_devices_do_not_meet(traffic: Traffic) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert (there.device, there.to("cpu").device.type) == (DEVICE, "cpu")
    with pytest.raises(DeviceMismatchError, match="expected all tensors on cuda:0"):
        here + there
    with pytest.raises(DeviceMismatchError):
        torch.cat([here, there])
    with pytest.raises(TypeError, match="use Tensor.cpu"):
        there.numpy()
    assert (there * torch.tensor(2.0)).tolist() == [2, 2, 2]  # a number may stay
    assert traffic.waits["tolist @ outside the product"] == 1
    assert type(here + here) is torch.Tensor
