"""``control/000001.json``: what other terminals asked of a study that may be running."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Field, PositiveInt

from orchestrator.config import Scalar, StudyConfig
from vitaclip.config import Config


class ControlChange(Config):
    """``control/000001.json``: one change of a study that may be running
    (:mod:`orchestrator.control`).
    """

    paused: bool | None = Field(None, description="None: as before")
    num_trials: PositiveInt | None = Field(
        None, description="the number of trials from now on; None: as before"
    )
    points: tuple[dict[str, Scalar], ...] = Field(
        (), description="points to try as soon as possible"
    )


@dataclass(frozen=True)
class Control:
    """What all changes of a study together say."""

    num_trials: int
    paused: bool = False
    points: tuple[dict[str, Scalar], ...] = ()

    @classmethod
    def of(cls, config: StudyConfig, changes: Iterable[ControlChange]) -> Control:
        """The latest word on each matter, oldest change first; points add up."""
        control = cls(config.search.num_trials)
        for change in changes:
            control = cls(
                change.num_trials or control.num_trials,
                control.paused if change.paused is None else change.paused,
                control.points + change.points,
            )
        return control
