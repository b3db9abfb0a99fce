"""Slots in virtual time: what a search does with them, event by event."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Verdict = Literal["go_on", "pause", "stop"]


class Search(Protocol):
    """What decides which trial runs next, and how long."""

    def next_trial(self) -> int | None:
        """The trial that a free slot gets now, a new one or one that was paused; None: none."""

    def epoch_ended(self, number: int, epoch: int, value: float) -> Verdict:
        """Hears of an epoch, and says what becomes of the trial."""

    def training_ended(self, number: int) -> None:
        """Hears that a trial was stopped, or that it ran to its last epoch."""


@dataclass(frozen=True)
class Run:
    """What a search made of its slots."""

    epochs: Counter[int]  # trial -> how many it trained
    wall: float  # until the last slot was free
    slot_use: float  # the share of the slots' time in which they trained


def run(
    search: Search,
    slots: int,
    num_epochs: int,
    report: Callable[[int, int], float],
    epoch_time: Callable[[int], float] = lambda _: 1.0,
) -> Run:
    """Runs a search to its end.

    A free slot asks at once. Of epochs that end at the same moment, the lowest trial's comes first.

    Args:
        search: has not begun.
        slots: how many trials run at once.
        num_epochs: of a whole training.
        report: what a trial reports after an epoch, which count from 1.
        epoch_time: how long an epoch of a trial takes.
    """
    epochs = Counter[int]()
    running: list[tuple[float, int]] = []  # when the next epoch ends, and whose
    now = busy = 0.0
    while True:
        while len(running) < slots and (free := search.next_trial()) is not None:
            heapq.heappush(running, (now + epoch_time(free), free))
        if not running:
            return Run(epochs, now, busy / (slots * now))
        now, number = heapq.heappop(running)
        busy += epoch_time(number)
        epochs[number] += 1
        epoch = epochs[number]
        verdict = search.epoch_ended(number, epoch, report(number, epoch))
        if verdict == "stop" or epoch == num_epochs:
            search.training_ended(number)
        elif verdict == "go_on":
            heapq.heappush(running, (now + epoch_time(number), number))
