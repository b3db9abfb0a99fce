"""What a study asks of the way in which its decisions are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from orchestrator.config import Scalar, StudyConfig
from orchestrator.search.outcome import Outcome
from orchestrator.search.proposals.proposer import Proposal
from orchestrator.search.search_space import Params, apply
from orchestrator.search.stopping.rule import History
from orchestrator.storage.records.decision import VerdictKind
from orchestrator.storage.records.trial import TrialInfo

Wish = Mapping[str, Scalar] | None


class Decider(Protocol):
    """Decides for one study, and knows what each decision was taken from.

    Only the study's driver may call what writes: ``take_over``, ``propose``, ``promote``,
    ``look_at``, ``epoch_ended`` and ``give_up``.
    """

    @property
    def max_trials(self) -> float:
        """How many trials the study can have; infinity if there is no limit."""

    @property
    def tried(self) -> Sequence[Params]:
        """The parameters of every point proposed so far, in order."""

    @property
    def paused(self) -> set[int]:
        """Trials that do not run, but may go on."""

    def recall(self, trial: TrialInfo, history: History, failure: str | None) -> None:
        """Takes from the record what is known of a trial. Called for all of them: for those that
        have ended in the order in which they did, then for the others by number.

        Args:
            trial: as proposed.
            history: of its epochs so far.
            failure: why it failed for good, if its result says so.
        """

    def take_over(self) -> TrialInfo | None:
        """Finishes what the last driver may have left half done; the trial that it had decided on
        and not written down, if there is one.
        """

    def awaited(self, number: int) -> list[int]:
        """The trials that must end before trial ``number`` can be proposed, and have not."""

    def known_outcomes(self, number: int) -> Sequence[Outcome] | None:
        """How the trials ended that the proposal of trial ``number`` may depend on, in order; None:
        it must wait for one that is still running.
        """

    def propose(self, number: int, wish: Wish) -> TrialInfo:
        """Decides on the next trial, and writes it down."""

    def promote(self, *, is_last: bool) -> int | None:
        """Lets the paused trial go on that deserves it most, if one does; ``is_last``: nothing else
        is left to do.
        """

    def look_at(self, number: int, history: History) -> bool:
        """Whether a trial that broke off, or that the last driver left, is still to be trained,
        given its epochs so far.
        """

    def epoch_ended(self, number: int, history: History) -> VerdictKind | None:
        """Takes note of a running trial's newest epochs, and decides what it does next; None: the
        last of them is not judged.
        """

    def failed(self, number: int, reason: str) -> None:
        """Takes note that a trial failed for good."""

    def outcome(self, trial: TrialInfo, history: History, error: str | None) -> Outcome | None:
        """How a trial ended, given its epochs and the error that it gave up with; None if it is to
        go on, or fails with that error.
        """

    def give_up(self) -> Sequence[int]:
        """Ends the search: trials that are paused are pruned, and named."""


def new_trial(
    config: StudyConfig, number: int, proposal: Proposal, proposed_at: datetime
) -> TrialInfo:
    """``trial.json`` of a proposal, without what it is judged by.

    Args:
        config: the study's.
        number: the trial's.
        proposal: its point, and where its training begins and ends.
        proposed_at: when.
    """
    train = apply(config.train, proposal.params)
    return TrialInfo(
        number=number,
        params=proposal.params,
        train=train.model_copy(update={"seed": train.seed + number % config.search.num_repeats}),
        parent=proposal.parent,
        stop_epoch=proposal.stop_epoch,
        proposed_at=proposed_at,
    )
