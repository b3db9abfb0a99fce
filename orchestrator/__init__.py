"""Sweeps of Vita-CLIP on Ray: search, training, benchmarks, records, tracking.

The modules here are the doors of the commands (``vitaclip sweep``, ``python -m
orchestrator.sweep``) and what a user writes (``config.py``). What lies behind them is in the
packages: ``commands`` does what was asked for, ``search`` decides, ``execution`` runs on Ray,
``storage`` remembers, ``evaluation`` scores, ``tracking`` tells MLflow, ``display`` shows.

``from orchestrator import open_study`` reads a study from Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.study_view import StudyView, open_study

__all__ = ["StudyView", "open_study"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.study_view"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
