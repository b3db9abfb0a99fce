"""Whether a study's decisions come out equal when they are taken again."""

from __future__ import annotations

from orchestrator.commands import common
from orchestrator.search.replay import replay
from vitaclip.errors import VitaClipError
from vitaclip.terminal import Terminal


def replay_study(name: str) -> None:
    """Prints how many decisions came out equal.

    Raises:
        InputError: there is no such study, or its record is not whole.
        VitaClipError: a decision came out otherwise.
    """
    found = replay(common.open_record(name))
    if found.difference is not None:
        raise VitaClipError(
            f"study {name!r}: {found.num_equal} decisions came out equal, the next one did not: "
            f"{found.difference}"
        )
    Terminal().print(f"{name}: {found.num_equal} decisions, all equal")
