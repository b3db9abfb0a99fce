"""A study as Slurm jobs. The batch files beside this one run the first two, and srun the third:

    job.py sweep FILE.yaml [--set KEY=VALUE ...]    Ray on the job's nodes, and a sweep on it
    job.py join JOB                                 the job's nodes for the Ray of that job
    job.py node                                     the Ray node of one of them

Before a job's time is over Slurm warns it by SIGUSR1. Then the trials on its nodes save, a sweep
gives its study back, and the job goes back into the queue.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

HERE = Path(__file__).parent
RAY = str(Path(sys.executable).parent / "ray")
# Of the time between the warning and the end: for a sweep whose trials have stopped. Also for what
# ends when nothing is left to save.
_STOP_S = 60.0
_LOOK_EVERY_S = 5.0
# a Ray node is tried again if it does not come up
_STARTS, _START_S = 3, 120.0
_HEAD_OBJECT_BYTES = 256 * 2**20
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")
# only the sweep speaks to the tracking service
_SECRETS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY")
Process = subprocess.Popen[bytes]


class _BackIntoQueue(BaseException):
    """The job's time is nearly over, or what it waits for is itself in the queue."""


def main(command: str, *arguments: str) -> int:
    """Returns the exit code."""
    if command == "node":
        return run_node()
    _react_once(signal.SIGUSR1, _BackIntoQueue())
    signal.signal(signal.SIGTERM, _ignore)  # who cancels the job ends what it runs, too
    try:
        return run_sweep(arguments) if command == "sweep" else run_join(*arguments)
    except _BackIntoQueue:
        print("back into the queue", flush=True)
        # Slurm ends the job meanwhile; these commands inherit that they heed no signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _output_of("scontrol", "requeue", _own_number())
        if command == "join":
            dependency = f"Dependency=after:{arguments[0]}"
            _output_of("scontrol", "update", f"JobId={_own_number()}", dependency)
        return 0


def run_sweep(arguments: Sequence[str]) -> int:
    """Runs Ray on all nodes of the job, and a sweep on it to its end.

    Raises:
        _BackIntoQueue: the study is not done.
    """
    os.environ.setdefault("VITACLIP_STORE", str(Path("store").absolute()))
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    os.environ["RAY_ADDRESS"] = f"{_node_address()}:{_free_port()}"
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ExitStack() as opened:
        head = opened.enter_context(_head())
        nodes = opened.enter_context(_nodes())
        opened.enter_context(_open_to_other_jobs())
        wait = _asking("wait", os.environ["SLURM_JOB_NUM_NODES"])
        if _end_of(opened.enter_context(wait), head, nodes):
            sys.exit("Ray has not started on all nodes of the job: see above")
        command = (sys.executable, "-m", "orchestrator.sweep", *arguments)
        sweep = opened.enter_context(_running(*command))
        try:
            return _end_of(sweep, head, nodes)
        except _BackIntoQueue:
            _place_of(os.environ["SLURM_JOB_ID"]).unlink()  # nobody joins any more
            _drain(nodes, max(10.0, _seconds_left() - _STOP_S))
            sweep.terminate()
            if sweep.wait() == 0:  # it was done
                return 0
            raise


def run_join(job: str) -> int:
    """Lends the nodes of this job to the sweep of another one, for as long as that one runs.

    Raises:
        _BackIntoQueue: this job's time is nearly over, or the other one is back in the queue.
    """
    while state := _state_of(job):
        if state in _QUEUED:
            raise _BackIntoQueue
        place = _place_of(job)
        if place.exists():
            os.environ |= json.loads(place.read_text())
            with _nodes() as nodes:
                try:
                    nodes.wait()
                except _BackIntoQueue:
                    _drain(nodes, max(10.0, _seconds_left() - _STOP_S), os.environ["SLURM_JOB_ID"])
                    raise
        time.sleep(_LOOK_EVERY_S)
    return 0


def run_node() -> int:
    """Is the Ray node of the Slurm node that it runs on, with what Slurm gave the job there."""
    _react_once(signal.SIGTERM, SystemExit(0))
    os.environ.setdefault("VITACLIP_FRAME_CACHE", f"{_scratch()}/vitaclip-frames")
    options = (
        *("--address", os.environ["RAY_ADDRESS"], "--node-name", os.environ["SLURM_JOB_ID"]),
        *("--num-cpus", os.environ["SLURM_CPUS_ON_NODE"]),
        *("--num-gpus", os.environ.get("SLURM_GPUS_ON_NODE", "0")),
    )
    with _ray_node(*options) as node:
        _wait_for_end(node)
    return 0


# Ray


@contextmanager
def _head() -> Iterator[Process]:
    """The head, on the job's first node beside the one that trains there."""
    _, _, port = os.environ["RAY_ADDRESS"].rpartition(":")
    options = (
        *("--head", "--port", port, "--node-name", "head", "--num-cpus", "0", "--num-gpus", "0"),
        *("--object-store-memory", str(_HEAD_OBJECT_BYTES), "--include-dashboard", "false"),
        *("--ray-client-server-port", str(_free_port())),
    )
    with _ray_node(*options) as head:
        yield head


@contextmanager
def _nodes() -> Iterator[Process]:
    """A Ray node on each of the job's nodes."""
    command = (*_srun(), sys.executable, __file__, "node")
    with _running(*command, environment=_without_secrets()) as nodes:
        yield nodes
        if nodes.poll() is None:  # srun would kill them, and their files would stay
            _drain(nodes, _STOP_S)


@contextmanager
def _ray_node(*options: str) -> Iterator[Process]:
    """``ray start``, on ports of its own and with its files in the scratch folder, once it is up.

    It gives up when its parts take more than 30 s, as from a slow file system: then it is tried
    again.
    """
    environment = _without_secrets()
    del environment["RAY_ADDRESS"]  # the head would take it for a cluster to join
    # Ray's own wait for a node's end comes on top of this file's
    environment |= {"TMPDIR": _scratch(), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    for _ in range(_STARTS):
        with ExitStack() as opened:
            folder = tempfile.TemporaryDirectory(
                prefix="ray-", dir=_scratch(), ignore_cleanup_errors=True
            )
            own = opened.enter_context(folder)
            printed = Path(own) / "printed.txt"
            output = opened.enter_context(printed.open("w"))
            command = (
                *(RAY, "start", "--node-ip-address", _node_address(), "--temp-dir", own, *options),
                *("--dashboard-agent-listen-port", "0", "--disable-usage-stats", "--block"),
            )
            node = opened.enter_context(_running(*command, environment=environment, output=output))
            if _comes_up(node, printed):
                yield node
                return
    sys.exit("Ray has not started on this node: see above")


def _without_secrets() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


def _comes_up(node: Process, printed: Path) -> bool:
    deadline = time.monotonic() + _START_S
    while node.poll() is None and time.monotonic() < deadline:
        if "Ray runtime started" in printed.read_text():
            return True
        time.sleep(0.5)
    return False


def _wait_for_end(node: Process) -> None:
    """Until a Ray node has ended; ``ray start`` does not when Ray has drained its node."""
    while node.poll() is None and "raylet" in _names(psutil.Process(node.pid).children()):
        time.sleep(1)


def _names(processes: Sequence[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.append(process.name())
    return found


def _drain(nodes: Process, patience_s: float, *job: str) -> None:
    """Has the trials on Ray's nodes, or on those of one job, save and end, and waits until this
    job's nodes have ended.
    """
    with _asking("drain", str(round(patience_s)), *job) as question:
        question.wait()
    with suppress(subprocess.TimeoutExpired):
        nodes.wait(patience_s)


def _asking(*words: str) -> AbstractContextManager[Process]:
    """Ray takes the token from the environment when it is imported: so not in this process."""
    return _running(sys.executable, str(HERE / "ray_nodes.py"), *words)


# Slurm


def _srun() -> Sequence[str]:
    """Starts a command on each node of the job, with all that the job has there."""
    number = os.environ["SLURM_JOB_NUM_NODES"]
    return (
        *("srun", f"--nodes={number}", f"--ntasks={number}", "--ntasks-per-node=1"),
        # one node's end is not the others'
        *("--cpu-bind=none", "--wait=0", "--kill-on-bad-exit=0"),
    )


def _node_address() -> str:
    """The address by which Slurm reaches this node."""
    shown = _output_of("scontrol", "show", "node", "--oneliner", os.environ["SLURMD_NODENAME"])
    [name] = re.findall(r" NodeAddr=(\S+)", shown)
    address = socket.gethostbyname(name)
    if name == address or not address.startswith("127."):
        return address
    # a host's own name may stand for a loopback address there
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def _seconds_left() -> float:
    """Until Slurm ends this job."""
    end = _output_of("squeue", "--noheader", "--format=%e", "--jobs", _own_number())
    return (datetime.fromisoformat(end.strip()) - datetime.now()).total_seconds()


def _own_number() -> str:
    """Slurm takes the job id of an array's last task for the whole array."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _state_of(job: str) -> str:
    """What a job does; empty: it has ended."""
    command = ("squeue", "--noheader", "--format=%T", "--jobs", job)
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@contextmanager
def _open_to_other_jobs() -> Iterator[None]:
    """Tells this user's other jobs where Ray is, until the end of the block."""
    names = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    place = _place_of(os.environ["SLURM_JOB_ID"])
    place.unlink(missing_ok=True)
    place.touch(mode=0o600, exist_ok=False)
    place.write_text(json.dumps({name: os.environ[name] for name in names}))
    try:
        yield
    finally:
        place.unlink(missing_ok=True)


def _place_of(job: str) -> Path:
    return Path(f"slurm-{job}.json")


def _scratch() -> str:
    return os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir()


# Processes


@contextmanager
def _running(
    *command: str, environment: Mapping[str, str] | None = None, output: IO[str] | None = None
) -> Iterator[Process]:
    """A process that ends with the block, if not before."""
    process = subprocess.Popen(command, env=environment, stdout=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_of(process: Process, *needed: Process) -> int:
    """The exit code of a process that needs others: when they have ended, it soon has, too."""
    while all(other.poll() is None for other in needed):
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_STOP_S)
    sys.exit("Ray has ended on nodes of the job: see above")


def _react_once(number: int, reaction: BaseException) -> None:
    """Raises at the first signal, and at no further one, so that what ends can end."""

    def react(*_: object) -> None:
        signal.signal(number, _ignore)
        raise reaction

    signal.signal(number, react)


def _ignore(*_: object) -> None:
    """Unlike ``SIG_IGN`` it is not inherited by programs that this one starts."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _output_of(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
