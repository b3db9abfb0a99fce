"""Which packet of a video holds which frame.

A packet's *place* is its position in the file, which is the order of decoding. A frame's index is
its position in the order of display. Times in a container tell how the one becomes the other,
without decoding anything, but they may lie: files that were remuxed from AVI carry times in the
order of decoding.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

# packets: as far apart as encoders that reorder put the pictures that others refer to
MAX_STRAIGHT = 16


class Packet(NamedTuple):
    """What a container says about one packet. ``time`` is when its picture is shown, in any
    unit.
    """

    time: int | None
    is_key: bool
    # False: only others refer to it (an edit list cut it away)
    is_shown: bool


@dataclass(frozen=True)
class Timeline:
    """A video whose times can be believed."""

    packets: Sequence[Packet]
    # of all packets, hidden ones too, in the order of display
    places: Sequence[int]

    @cached_property
    def order(self) -> list[int]:
        """Each frame's packet."""
        return [place for place in self.places if self.packets[place].is_shown]

    @cached_property
    def ranks(self) -> list[int]:
        """Each packet's position among all, in the order of display."""
        ranks = [0] * len(self.places)
        for rank, place in enumerate(self.places):
            ranks[place] = rank
        return ranks

    @cached_property
    def newest(self) -> list[int]:
        """By place: the largest rank up to there."""
        return list(accumulate(self.ranks, max))

    @cached_property
    def depth(self) -> int:
        """How many packets at most come before one in the file and after it in the display."""
        return max(place - rank for rank, place in enumerate(self.places))

    @cached_property
    def _doubtful(self) -> list[bool]:
        """By place: whether a packet says that the next one is shown next, where it might be shown
        before.

        That is so of packets that are the newest to be shown and, where pictures between them refer
        to each other, of all. Without reordering nothing comes out in another order.
        """
        pairs = zip(self.ranks, self.newest, self.ranks[1:], strict=False)
        says_so = [
            rank + 1 == after and (rank == newest or self.depth > 1)
            for rank, newest, after in pairs
        ]
        return [self.depth > 0 and doubt for doubt in (*says_so, False)]

    def witnesses(self, wanted: Iterable[int]) -> set[int]:
        """Packets that come out before a wanted one if its time lies. All others that could are
        decoded anyway.
        """
        return {place + 1 for place in wanted if self._doubtful[place]}

    def spans(self, wanted: Iterable[int]) -> list[tuple[int, int]]:
        """The runs of packets to decode, (first, last) places: from key frames to wanted
        packets.
        """
        keys = [place for place, packet in enumerate(self.packets) if packet.is_key]
        spans: list[tuple[int, int]] = []
        for place in sorted(wanted):
            first = self._start(keys, place)
            while spans and first <= spans[-1][1] + 1:
                first = min(first, spans.pop()[0])
            spans.append((first, place))
        return spans

    def _start(self, keys: Sequence[int], place: int) -> int:
        """The key frame to decode from.

        One shown later does not start the group (open groups of pictures). A doubtful one does not
        either: pictures that should come out before it need those before it.
        """
        before = reversed(keys[: bisect.bisect_right(keys, place)])
        starts = (
            key
            for key in before
            if self.ranks[key] <= self.ranks[place] and not self._doubtful[key]
        )
        return next(starts, 0)


def timeline_of_times(packets: Sequence[Packet], reorder_depth: int) -> Timeline | None:
    """The timeline that the packets' times tell, or None where they cannot be right.

    They are right if each packet has its own; if the first packet is a key frame and the first
    shown (a cut open group of pictures begins with pictures that will not decode); if what precedes
    a key frame in the file precedes it in the display; and if they reorder packets as the decoder
    will: by up to ``reorder_depth``, and never by nothing for long (a part of a file may lie).
    """
    times = [packet.time for packet in packets if packet.time is not None]
    if len(set(times)) < len(packets):
        return None
    timeline = Timeline(packets, sorted(range(len(packets)), key=times.__getitem__))
    keys = [place for place, packet in enumerate(packets) if packet.is_key]
    is_grouped = all(timeline.newest[key] == timeline.ranks[key] for key in keys)
    is_reordered = timeline.depth > 0 and _longest_straight_run(timeline.places) <= MAX_STRAIGHT
    is_reordered_alike = timeline.depth <= reorder_depth and (is_reordered or reorder_depth == 0)
    is_started = packets[0].is_key and timeline.ranks[0] == 0
    return timeline if is_started and is_grouped and is_reordered_alike else None


def _longest_straight_run(places: Sequence[int]) -> int:
    """Of packets that are shown in the order of decoding."""
    runs = groupby(place == rank for rank, place in enumerate(places))
    return max((sum(1 for _ in run) for is_straight, run in runs if is_straight), default=0)


def pictures_of_frames(decoded: Sequence[int], timeline: Timeline | None) -> list[int]:
    """For each frame, which of the decoded pictures it shows. ``decoded`` has each picture's packet
    (not empty).

    What decodes, in the order it comes out, is the truth. Where the pictures follow the timeline, a
    frame whose packet gave none repeats the one before; elsewhere the n-th picture is the n-th
    frame.
    """
    if timeline is None:
        return list(range(len(decoded)))
    ranks = [timeline.ranks[place] for place in decoded]
    if all(a <= b for a, b in pairwise(ranks)):
        return [
            max(0, bisect.bisect_right(ranks, timeline.ranks[place]) - 1)
            for place in timeline.order
        ]
    return [min(index, len(decoded) - 1) for index in range(len(timeline.order))]
