"""``decisions/000001.json``: what an asynchronous study decided, and what it knew then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, PositiveInt

from orchestrator.config import Scalar
from vitaclip.config import Config


class Report(Config):
    """Trial ``trial`` has trained an epoch."""

    trial: int
    epoch: PositiveInt
    values: tuple[float | None, ...] = Field(
        description="the objectives after this epoch; None: not a number"
    )


class Failure(Config):
    """Trial ``trial`` has failed for good."""

    trial: int
    reason: str


Observation = Report | Failure


class Proposed(Config):
    """Trial ``trial`` is to be trained."""

    kind: Literal["propose"] = "propose"
    trial: int
    params: dict[str, Scalar]
    parent: int | None = None
    stop_epoch: int | None = None
    wish: dict[str, Scalar] | None = Field(
        None, description="the parameters that someone wanted tried; None: the sampler was free"
    )


VerdictKind = Literal["go_on", "pause", "stop", "promote"]


class Verdict(Config):
    """What trial ``trial`` does after an epoch. A paused trial may be promoted later."""

    kind: VerdictKind
    trial: int
    epoch: PositiveInt
    why: str


class GaveUp(Config):
    """No further trial or promotion is wanted: those that are paused are pruned."""

    kind: Literal["give_up"] = "give_up"
    trials: tuple[int, ...]


Decision = Annotated[Proposed | Verdict | GaveUp, Field(discriminator="kind")]


class JournalEntry(Config):
    """One decision, and what was learned between it and the decision before."""

    number: PositiveInt
    seen: tuple[Observation, ...] = ()
    decision: Decision
    decided_at: AwareDatetime
