"""Ray: an own one on this machine, or the cluster at ``RAY_ADDRESS``; and what dead actors leave
reserved there.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from orchestrator.config import ResourcesConfig
from orchestrator.execution import RAY_ENVIRONMENT
from orchestrator.execution.local_ray import local_ray
from orchestrator.execution.ray_internals import (
    GcsClient,
    GetClusterStatusReply,
    PlacementGroupStats,
    canonicalize_bootstrap_address,
    is_autoscaler_v2,
    placement_groups,
)
from vitaclip import service
from vitaclip.errors import InputError

# Settings that workers share with the driver, and all that begins with the prefix; credentials are
# their node's own.
_FORWARDED = ("S3_ENDPOINT_URL", "S3_ADDRESSING_STYLE", "AWS_REGION", "AWS_DEFAULT_REGION")
_FORWARDED_PREFIX = "VITACLIP_"
_QUESTION = """
import sys
from ray._raylet import GcsClient
print("asks", flush=True)
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", timeout=60)
"""
_ADVICE = (
    "start it, give its token (RAY_AUTH_MODE, RAY_AUTH_TOKEN), or unset RAY_ADDRESS to run here"
)
_REAP_EVERY_S, _LOOK_EVERY_S = 2.0, 10.0
_logger = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str | None, resources: ResourcesConfig) -> Iterator[None]:
    """Connects to the cluster at ``address``, or runs an own one on this machine until the end of
    the block.

    Raises:
        InputError: no cluster answers, or it can never hold what the study asks for.
    """
    with local_ray(num_cpus(), resources) if address is None else _remote_ray(address):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init has put its own there
        if address is not None and not cluster_grows():
            check_capacity(ray.cluster_resources(), resources, f"the cluster at {address}")  # type: ignore[no-untyped-call]
        with _reaper():
            yield


def check_capacity(found: dict[str, float], resources: ResourcesConfig, place: str) -> None:
    """Raises InputError if the trials could never run at once: they would wait for each other for
    ever.
    """
    if lacking := shortage(found, resources):
        raise InputError(
            f"resources: {lacking} in {place}; lower max_concurrent_trials, num_workers or the "
            "needs of a worker"
        )


def shortage(found: dict[str, float], resources: ResourcesConfig) -> str | None:
    """What is too little for all trials that may run at once; None: nothing is."""
    trials = resources.max_concurrent_trials
    for kind, amount in resources.per_worker.items():
        need, have = resources.min_workers * amount, found.get(kind, 0.0)
        if need * trials > have:
            return (
                f"{trials} trials at once need {need * trials:g} {kind} ({need:g} each), "
                f"found {have:g}"
            )
    return None


def has_room_beside(resources: ResourcesConfig) -> bool:
    """Whether the cluster holds one more worker than all slots take."""
    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_workers = resources.max_concurrent_trials * resources.max_workers + 1
    needs = {kind: amount * num_workers for kind, amount in resources.per_worker.items()}
    return all(found.get(kind, 0.0) >= amount for kind, amount in needs.items())


def cluster_grows() -> bool:
    """Whether the cluster has an autoscaler: Ray's second one, which ``ray up`` and KubeRay start
    by default.
    """
    return bool(is_autoscaler_v2(fetch_from_server=True))


class GrowthWatch:
    """Says that trials wait for an autoscaler, and what it cannot provide, each kind of need once.

    It is no error: on a shared cluster others may hold the last nodes that it may have.
    """

    def __init__(self, resources: ResourcesConfig, say: Callable[[str], None]) -> None:
        self._say = say
        if lacking := shortage(ray.cluster_resources(), resources):  # type: ignore[no-untyped-call]
            say(f"{lacking} so far: trials wait until the cluster has grown")
        self._client = GcsClient(address=ray.get_runtime_context().gcs_address)
        self._said: set[str] = set()
        self._next_look = 0.0

    def look(self) -> None:
        """Asks the autoscaler, if that was not done a moment ago."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        reply = GetClusterStatusReply.FromString(self._client.get_cluster_status(timeout_s=10))
        groups = [
            gang.requests for gang in reply.autoscaling_state.infeasible_gang_resource_requests
        ]
        for request in itertools.chain(
            reply.autoscaling_state.infeasible_resource_requests, *groups
        ):
            bundle = sorted(request.resources_bundle.items())
            needs = ", ".join(f"{amount:g} {kind}" for kind, amount in bundle)
            if needs not in self._said:
                self._said.add(needs)
                self._say(
                    f"the cluster's autoscaler adds no node for {needs}: what needs it waits for a "
                    "place"
                )


def check_local_resources(resources: ResourcesConfig) -> None:
    """The same for this machine, without starting anything."""
    import torch

    found = {"CPU": float(num_cpus()), "GPU": float(torch.cuda.device_count())}
    check_capacity(found, resources, "this machine")


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_settings() -> dict[str, str]:
    """What of this process's environment a cluster's workers are given, for all to see who may use
    the cluster.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIX)
    }


@contextmanager
def _remote_ray(address: str) -> Iterator[None]:
    check_answers(address)
    variables = (
        worker_settings()
        | {name: os.environ[name] for name in RAY_ENVIRONMENT}
        | {"RAY_ADDRESS": address}
    )
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"RAY_ADDRESS: no cluster answers at {address}: {reason}; {_ADVICE}"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Asks the cluster one question. Ray's own client would ask for many minutes, and cannot be
    told to stop.

    Raises:
        InputError: nobody listens there, it is no cluster, or the token is not its own.
    """
    try:
        found = canonicalize_bootstrap_address(address.removeprefix("ray://")) or address
        host, _, port = found.rpartition(":")
        socket.create_connection((host, int(port)), timeout=service.ATTEMPT_S).close()
    except (OSError, ValueError) as error:  # Ray's ConnectionError is an OSError
        raise InputError(
            f"RAY_ADDRESS: no cluster answers at {address}: {error}; {_ADVICE}"
        ) from None
    if address.startswith("ray://"):
        return
    probe = subprocess.Popen(
        [sys.executable, "-c", _QUESTION, found],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert probe.stdout is not None
    probe.stdout.readline()  # Ray is imported, which may take a while on a busy machine
    try:
        _, errors = probe.communicate(timeout=service.ATTEMPT_S)
    except subprocess.TimeoutExpired:
        probe.kill()
        probe.communicate()
        raise InputError(
            f"RAY_ADDRESS: what listens at {address} does not answer as Ray within "
            f"{service.ATTEMPT_S:.0f} s; {_ADVICE}"
        ) from None
    if probe.returncode:
        reason = next(
            (line for line in errors.splitlines() if "Error" in line), errors.strip()[-200:]
        )
        raise InputError(f"RAY_ADDRESS: the cluster at {address} refuses: {reason}; {_ADVICE}")


@contextmanager
def _reaper() -> Iterator[None]:
    """Frees what dead actors hold, at once and again and again until the end of the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                free_dead_groups()
            # the cluster may be busy or gone: the next round tries again
            except Exception as error:
                _logger.warning("placement groups of dead actors could not be freed: %s", error)
            ended.wait(_REAP_EVERY_S)

    thread = threading.Thread(target=run, name="reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def free_dead_groups() -> None:
    """Removes the placement groups of this job's, and of ended jobs', dead actors.

    Ray keeps a group until its creator *and* its job are dead. So the workers' group of a Ray Train
    run whose controller was killed would hold its CPUs and GPUs until the study ends, and the
    trial's next attempt would wait for them. Ray Train's own cleaner asks the dashboard and is
    blind without one; the cluster's tables always answer.
    """
    own_job = ray.get_runtime_context().get_job_id()
    for group in placement_groups():
        of_actor = not ray.ActorID(group.creator_actor_id).is_nil()
        over = group.creator_job_dead or group.creator_job_id.hex() == own_job
        if of_actor and group.creator_actor_dead and over and not group.is_detached:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def a_group_waits() -> bool:
    """Whether a worker group of this job finds too little free in a cluster that could hold it, as
    after the loss of a node.
    """
    own_job = ray.get_runtime_context().get_job_id()
    no_resources = PlacementGroupStats.SchedulingState.NO_RESOURCES
    return any(
        group.creator_job_id.hex() == own_job
        and not ray.ActorID(group.creator_actor_id).is_nil()
        and group.stats.scheduling_state == no_resources
        for group in placement_groups()
    )
