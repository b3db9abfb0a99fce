"""What a compiler makes of a layer's kernels: those that pass their results on to each other
become one.

As ``torch.compile`` does: element-wise work, casts, copies and LayerNorms fuse, unless what comes
between them needs the first and is needed by the second; matrix products and attention stay as they
are. Results that nothing else reads are then never written.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

from benchmarks.roofline.kernels import FUSABLE, Kernel


def fuse(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels with those of each call of a compiled layer fused."""
    last_reader: dict[int, int] = {}
    for place, kernel in enumerate(kernels):
        last_reader.update(dict.fromkeys(kernel.reads, place))
    calls: dict[tuple[str, int], list[int]] = defaultdict(list)
    fused: list[Kernel] = []
    for place, kernel in enumerate(kernels):
        if kernel.layer is None:
            fused.append(kernel)
        else:
            calls[kernel.phase, kernel.layer].append(place)
    for places in calls.values():
        for group in _grouped(places, kernels):
            kept = {
                memory
                for place in group
                for memory in kernels[place].writes
                if _is_read_outside(memory, group, kernels, last_reader)
            }
            fused.append(_merged([kernels[place] for place in group], kept))
    return fused


def _can_fuse(kernel: Kernel) -> bool:
    # A sum over frames runs across the rows that everything else runs along.
    return kernel.kind in FUSABLE and kernel.name != "sum"


@dataclass(eq=False)
class _Group:
    """Kernels that run as one, and the groups that run before it."""

    members: list[int]
    needed: set[_Group] = field(default_factory=set)

    def follows(self, other: _Group) -> bool:
        """Whether it needs a result of the other, directly or through more."""
        return other in self.needed or any(group.follows(other) for group in self.needed)

    def can_take(self, other: _Group) -> bool:
        """Whether nothing that runs between the two stops them from running as one."""
        between = (self.needed - {other}) | (other.needed - {self})
        return not any(group.follows(self) or group.follows(other) for group in between)


def _grouped(places: list[int], kernels: list[Kernel]) -> list[list[int]]:
    """The kernels of one call, in groups that can each run as one."""
    groups: list[_Group] = []
    fusable: set[_Group] = set()
    # the groups that wrote and that read a memory
    writers: dict[int, _Group] = {}
    readers: dict[int, list[_Group]] = defaultdict(list)

    def is_alike(group: _Group, kernel: Kernel) -> bool:
        return kernels[group.members[0]].shape == kernel.shape

    def merge(group: _Group, other: _Group) -> None:
        group.members += other.members
        group.needed = (group.needed | other.needed) - {group, other}
        groups.remove(other)
        for later in groups:
            if other in later.needed:
                later.needed = later.needed - {other} | {group}
        for memory, writer in writers.items():
            writers[memory] = group if writer is other else writer
        for found in readers.values():
            found[:] = [group if reader is other else reader for reader in found]

    for place in places:
        kernel = kernels[place]
        needed = {writers[memory] for memory in kernel.reads if memory in writers}
        group = _Group([place], needed)
        groups.append(group)
        for memory in kernel.writes:
            writers[memory] = group
        sharing = {reader for memory in kernel.reads for reader in readers[memory]}
        related = [*needed, *(group for group in sharing if is_alike(group, kernel))]
        for memory in kernel.reads:
            readers[memory].append(group)
        if not _can_fuse(kernel):
            continue
        fusable.add(group)
        for other in dict.fromkeys(sorted(related, key=lambda found: found.members[0])):
            if (
                other in groups
                and other is not group
                and other in fusable
                and group.can_take(other)
            ):
                merge(group, other)
    return [sorted(group.members) for group in groups]


def _is_read_outside(
    memory: int, group: list[int], kernels: list[Kernel], last_reader: dict[int, int]
) -> bool:
    last = last_reader.get(memory, -1)
    if last not in group:
        return last > group[0]
    between = range(group[0] + 1, last)
    members = set(group)
    return any(memory in kernels[place].reads for place in between if place not in members)


def _merged(kernels: list[Kernel], kept: set[int]) -> Kernel:
    """One kernel that reads what came from elsewhere, once, and writes what is read later."""
    if len(kernels) == 1:
        return kernels[0]
    reads: dict[int, int] = {}
    written: dict[int, int] = {}
    for kernel in kernels:
        for memory, size in kernel.reads.items():
            if memory not in written:
                reads[memory] = max(reads.get(memory, 0), size)
        for memory, size in kernel.writes.items():
            written[memory] = max(written.get(memory, 0), size)
    largest = max(kernels, key=lambda kernel: kernel.num_bytes)
    return replace(
        largest,
        name="+".join(dict.fromkeys(kernel.name for kernel in kernels)),
        reads=reads,
        writes={memory: size for memory, size in written.items() if memory in kept},
    )
