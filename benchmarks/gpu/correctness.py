"""Whether the device computes what the CPU computes in fp32: logits, and the gradients of a
step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.models import clips_of, model_of
from benchmarks.gpu.sizes import Sizes
from vitaclip.distributed import default_device
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.optimizer import accumulate_gradients

# Relative to the norm. bf16 has 8 bits: a rounding is up to 0.4%, and those of a dozen layers add
# up.
TOLERANCES = {"fp32": 1e-3, "bf16": 1e-1}
Results = tuple[Tensor, Tensor]  # logits, and the gradients one behind the other
_NUM_CLIPS, _NUM_CLASSES = 4, 10


def on_cpu(sizes: Sizes) -> Results:
    """What the CPU computes in fp32; asked for before a device is pretended."""
    return _computed(sizes, "fp32", torch.device("cpu"))


def check(sizes: Sizes, expected: Results) -> list[dict[str, object]]:
    """For each precision the relative error of logits and of all gradients, against the CPU's.

    Raises:
        ArithmeticError: one is beyond its tolerance.
    """
    rows: list[dict[str, object]] = []
    for precision, allowed in TOLERANCES.items():
        found = _computed(sizes, precision, default_device())
        logits, gradients = map(_error, found, expected)
        if not max(logits, gradients) <= allowed:
            raise ArithmeticError(
                f"{precision}: logits differ from the CPU's by {logits:.1e}, gradients by "
                f"{gradients:.1e}; allowed are {allowed:g}"
            )
        rows.append({"precision": precision, "logits": logits, "gradients": gradients,
                     "allowed": allowed})  # fmt: skip
    return rows


def _computed(sizes: Sizes, precision: str, device: torch.device) -> Results:
    model: VitaCLIP = model_of(sizes, _NUM_CLASSES, precision).placed_on(device)
    video, labels = (tensor.to(device) for tensor in clips_of(model, _NUM_CLIPS))
    accumulate_gradients(model, video, labels, micro_batch_size=2)
    with torch.no_grad():
        logits = model.logits(model.encode_video(video), model.encode_classes())
    gradients = [
        parameter.grad.float().flatten().cpu()
        for parameter in model.trainable().values()
        if parameter.grad is not None
    ]
    return logits.float().cpu(), torch.cat(gradients)


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
