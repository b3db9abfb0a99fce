"""What Slurm's jobs ask of the Ray cluster at RAY_ADDRESS:

ray_nodes.py wait NUMBER            until so many nodes have joined the head
ray_nodes.py drain SECONDS [JOB]    announces that all of them, or a job's, end after that time:
                                    their trials save and end, and then they end
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ray

RAY = str(Path(sys.executable).parent / "ray")
_START_S = 600.0


def main(command: str, number: str, *job: str) -> None:
    """Ends with an error if the nodes do not come in time."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    if command == "wait":
        _wait_for_nodes(int(number))
    else:
        _drain(number, *job)


def _wait_for_nodes(number: int) -> None:
    deadline = time.monotonic() + _START_S
    while (found := len(_nodes())) < number:
        if time.monotonic() > deadline:
            sys.exit(f"Ray has started on {found} of {number} nodes in {_START_S:.0f} s: see above")
        time.sleep(0.5)


def _drain(seconds: str, *job: str) -> None:
    reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the job ends")
    command = (RAY, "drain-node", "--deadline-remaining-seconds", seconds, *reason)
    ids = [node["NodeID"] for node in _nodes() if not job or node["NodeName"] == job[0]]
    drains = [subprocess.Popen([*command, "--node-id", node]) for node in ids]
    for drain in drains:
        drain.wait()
    print(f"Ray nodes that end now: {len(drains)}", flush=True)


def _nodes() -> list[dict[str, Any]]:
    """All but the head."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["NodeName"] != "head"]


if __name__ == "__main__":
    main(*sys.argv[1:])
