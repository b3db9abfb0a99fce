"""Gradients are averaged over workers while the backward pass still computes others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor, nn

from vitaclip.distributed import Average, gather_from_workers, rank_and_world_size

_BUCKET_BYTES = 8 * 2**20  # of fp32: large enough for a network's full speed


class GradientExchange:
    """Averages gradients over workers, in buckets of parameters that follow each other in the
    model.

    The first step sends all buckets at its end. It shows how many gradients come into each bucket,
    and in which order buckets become complete. From then on a complete bucket is sent at once, in
    that order on every worker. What is in a bucket never changes, and so sums do not change either:
    they depend on a number's place in its message.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        """``parameters`` are the trained ones, in the same order on every worker."""
        self._buckets = _split(list(parameters))
        self._order = list(range(len(self._buckets)))  # in which buckets are sent
        self._watches = False
        self._arrivals: list[int] = []  # for each gradient of this step its bucket
        self._expected: Counter[int] | None = None  # gradients of each bucket in a step
        self._missing: Counter[int] = Counter()  # of those, how many are still to come
        self._sent: dict[int, Average] = {}
        _, self._num_workers = rank_and_world_size()
        if self._num_workers == 1:
            return
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _, n=number: self._note(n))

    def expect(self) -> None:
        """To be called before the last backward passes of a step: they complete its gradients."""
        self._watches = True
        self._arrivals.clear()
        self._missing = Counter(self._expected)

    def begin_anew(self) -> None:
        """To be called when memory ran out in a step's backward passes, before it is computed
        again. What was sent stands: the gradients are the same up to rounding.
        """
        self._watches = False

    def finish(self) -> None:
        """Replaces the step's gradients by their mean over workers.

        Raises:
            WorkerLostError: another worker is gone or hangs.
        """
        self._watches = False
        if self._num_workers == 1:
            return
        for number in self._order:
            self._send(number)
        for number, average in self._sent.items():
            average.write_into(self._gradients(number))
        self._sent.clear()
        if self._expected is None:
            self._learn_order()

    def _note(self, number: int) -> None:
        """Takes note of a gradient that came into a bucket, and sends what is complete."""
        if not self._watches:
            return
        self._arrivals.append(number)
        if self._expected is None:
            return
        self._missing[number] -= 1
        if self._missing[number] < 0:
            raise RuntimeError(
                "a step gives more gradients than the first one did: workers cannot tell when they "
                "are complete; let a method use the same parameters in every step"
            )
        for bucket in self._order:
            if self._missing[bucket]:
                return
            self._send(bucket)

    def _send(self, number: int) -> None:
        gradients = self._gradients(number)
        if gradients and number not in self._sent:
            self._sent[number] = Average(gradients)

    def _gradients(self, number: int) -> list[Tensor]:
        return [p.grad for p in self._buckets[number] if p.grad is not None]

    def _learn_order(self) -> None:
        """By the first worker's step: two workers that sent in two orders would wait for ever."""
        self._expected = Counter(self._arrivals)
        complete = {number: time for time, number in enumerate(self._arrivals)}
        never = len(self._arrivals)
        order = sorted(self._order, key=lambda number: complete.get(number, never))
        self._order = gather_from_workers([order])[0]


def _split(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Into buckets: each but the last is full with its last parameter."""
    buckets: list[list[nn.Parameter]] = [[]]
    size = 0
    for parameter in parameters:
        if size >= _BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += 4 * parameter.numel()
    return buckets
