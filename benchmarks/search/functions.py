"""Functions to maximize whose optimum is known, over fields that a training config has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import Scalar
from orchestrator.search.search_space import Params

# A range of length 1 each: what the fields mean does not matter here.
_UNIT_RANGES = {
    "optimizer.weight_decay": (0, 1),
    "data.max_broken": (0, 1),
    "data.augment.color_jitter": (0, 1),
    "data.augment.horizontal_flip": (0, 1),
    "optimizer.lr": (1, 2),
    "optimizer.clip_grad_norm": (1, 2),
}


@dataclass(frozen=True)
class Function:
    """A function of the parameters of a trial."""

    space: dict[str, dict[str, Any]]  # as a study's file has it
    value: Callable[[Mapping[str, Scalar]], float]
    optimum: float


def functions() -> dict[str, Function]:
    """Two that the literature uses, and one like a training's."""
    return {
        "Branin, 2 floats": Function(_unit_space(2), _branin, -0.397887),
        "Hartmann, 6 floats": Function(_unit_space(6), _hartmann, 3.32237),
        "tuning, 4 mixed": Function(_TUNING_SPACE, _tuning, _tuning_optimum()),
    }


def _unit_space(num_parameters: int) -> dict[str, dict[str, Any]]:
    return {
        key: {"type": "float", "low": low, "high": high}
        for key, (low, high) in list(_UNIT_RANGES.items())[:num_parameters]
    }


def _unit_point(params: Mapping[str, Scalar]) -> NDArray[np.float64]:
    return np.array([cast(float, params[key]) - _UNIT_RANGES[key][0] for key in params])


def _branin(params: Mapping[str, Scalar]) -> float:
    x, y = _unit_point(params) * 15 - (5, 0)
    parabola = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    return float(-(parabola + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10))


_HARTMANN_WEIGHTS = np.array([1, 1.2, 3, 3.2])
_HARTMANN_SCALES = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_CENTERS = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(params: Mapping[str, Scalar]) -> float:
    distances = (_HARTMANN_SCALES * (_unit_point(params) - _HARTMANN_CENTERS) ** 2).sum(1)
    return float(_HARTMANN_WEIGHTS @ np.exp(-distances))


_TUNING_SPACE: dict[str, dict[str, Any]] = {
    "optimizer.lr": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "prompts.depth": {"type": "int", "low": 1, "high": 12},
    "text.num_context": {"type": "int", "low": 0, "high": 32, "step": 2},
    "text.position": {"type": "categorical", "choices": ["end", "middle", "front"]},
}
_POSITION_GAIN = {"end": 0.0, "middle": 0.06, "front": -0.05}


def _tuning(params: Mapping[str, Scalar]) -> float:
    """The best learning rate falls with the depth; the rest does not interact."""
    depth, context = cast(int, params["prompts.depth"]), cast(int, params["text.num_context"])
    log_lr = math.log10(cast(float, params["optimizer.lr"]))
    miss = 0.08 * (log_lr + 2.2 + 0.08 * depth) ** 2 + 0.02 * (context - 8) ** 2 / 16
    return 0.8 + _POSITION_GAIN[str(params["text.position"])] - miss - 0.004 * (depth - 8) ** 2


def _tuning_optimum() -> float:
    best: Params = {"prompts.depth": 8, "text.num_context": 8, "text.position": "middle"}
    return _tuning(best | {"optimizer.lr": 10 ** -(2.2 + 0.08 * 8)})
