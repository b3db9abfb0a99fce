"""Learning curves that look like those of a training, made of a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_CURVES = 64
NUM_EPOCHS = 27
_NOISE = 0.01


@dataclass(frozen=True)
class Curves:
    """What trials 0, 1, 2, ... report after each epoch, whichever search runs them."""

    reported: NDArray[np.float64]  # trials x epochs, with noise
    final: NDArray[np.float64]  # trials: without noise, after the last epoch


def make_curves(seed: int, *, crossing: bool) -> Curves:
    """Curves that rise to their ends, each at a speed of its own.

    ``crossing``: the better a curve ends, the slower it rises, so that the first epochs mislead.
    """
    rng = np.random.default_rng(seed)
    end = 0.1 + 0.7 * rng.beta(2, 2, NUM_CURVES)
    if crossing:
        log_speed = -1.2 - 3 * (end - 0.45) + rng.normal(0, 0.4, NUM_CURVES)
    else:
        log_speed = rng.normal(-1.2, 0.5, NUM_CURVES)
    epochs = np.arange(1, NUM_EPOCHS + 1)
    exact = end[:, None] * (1 - np.exp(-np.outer(np.exp(log_speed), epochs)))
    return Curves(exact + rng.normal(0, _NOISE, exact.shape), exact[:, -1])
