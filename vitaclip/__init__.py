"""Vita-CLIP (CVPR 2023) as a plain PyTorch library: model, data, training and evaluation, without a
cluster.

``from vitaclip import TrainConfig, evaluate, fit, load_model, predict`` is all that most programs
need. Each name is imported when it is first asked for: ``import vitaclip`` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitaclip.checkpoint import load_model
    from vitaclip.config import TrainConfig
    from vitaclip.evaluation import evaluate
    from vitaclip.prediction import predict
    from vitaclip.train import fit

__all__ = ["TrainConfig", "evaluate", "fit", "load_model", "predict"]

_HOME = {
    "TrainConfig": "config",
    "evaluate": "evaluation",
    "fit": "train",
    "load_model": "checkpoint",
    "predict": "prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
