"""Times a step of several workers whose gradients travel while others are computed, against one
that sends them at its end, in one process group, alternating.

Workers are processes of this machine that talk by gloo over the loopback interface, which is faster
than a network and takes processor time from the steps. In a network namespace of its own it can be
made as slow as one (as root; ``tc`` is of Debian's iproute2):

    unshare --net sh -c 'ip link set lo up
        tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 400ms
        python -m benchmarks.exchange'
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from benchmarks.train_step import build
from vitaclip.gradient_exchange import GradientExchange
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.optimizer import accumulate_gradients


@dataclass
class Timing:
    """Seconds of each repetition."""

    step: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)  # for the mean, behind the backward pass

    def add(self, step_s: float, waited_s: float) -> None:
        self.step.append(step_s)
        self.waited.append(waited_s)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip model name")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1, help="clips of each worker")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=5, help="alternations; medians count")
    parser.set_defaults(compile=False)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        spawn(work, args=(args, meeting), nprocs=args.workers)


def work(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One worker; the first one prints."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.workers)
    model = build(args)
    exchange = GradientExchange(model.trainable().values())
    measure(model, exchange, args, is_meanwhile=True)  # it learns the order
    timings = {side: Timing() for side in ("at the end", "meanwhile")}
    for _ in range(args.repeats):
        for side, timing in timings.items():
            timing.add(*measure(model, exchange, args, is_meanwhile=side == "meanwhile"))
    if rank == 0:
        report(model, args, timings)
    distributed.destroy_process_group()


def measure(
    model: VitaCLIP, exchange: GradientExchange, args: argparse.Namespace, *, is_meanwhile: bool
) -> tuple[float, float]:
    """From a start that all workers share, the seconds to averaged gradients, and how many of them
    are behind the backward pass.
    """
    size = model.image_size
    video = torch.randint(256, (args.batch, 3, args.frames, size, size), dtype=torch.uint8)
    labels = torch.randint(args.classes, (args.batch,))
    model.zero_grad(set_to_none=True)
    distributed.barrier()
    started = time.perf_counter()
    accumulate_gradients(
        model,
        video,
        labels,
        micro_batch_size=None,
        before_last_backward=exchange.expect if is_meanwhile else lambda: None,
    )
    computed = time.perf_counter()
    exchange.finish()
    ended = time.perf_counter()
    return ended - started, ended - computed


def report(model: VitaCLIP, args: argparse.Namespace, timings: dict[str, Timing]) -> None:
    """Prints both sides and their ratio."""
    num_bytes = 4 * sum(parameter.numel() for parameter in model.trainable().values())
    print(f"{args.model}, {args.workers} workers of {args.batch} clips of {args.frames} frames, "
          f"{args.classes} classes, {args.precision}, {num_bytes / 1e6:.0f} MB of gradients; torch "
          f"{torch.__version__}, {platform.machine()}, one thread each")  # fmt: skip
    for side, timing in timings.items():
        print(f"  sent {side:10}  median {median(timing.step):6.2f} s, of which "
              f"{median(timing.waited):5.2f} s waiting  all "
              f"{[round(s, 2) for s in timing.step]}")  # fmt: skip
    at_end, meanwhile = timings.values()
    print(f"  ratio {median(at_end.step) / median(meanwhile.step):.2f}")


if __name__ == "__main__":
    main()
