"""Ray: an own one on this machine, or the cluster at ``RAY_ADDRESS``; and the clean-up after dead drivers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

# Read by Ray when it is imported. No reports home; none of Tune's own files, tables and signal handlers.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a job's settings reach its driver, which hands them on: no conflict
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # Train takes one report per check
    "RAY_TRAIN_V2_ENABLED": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # start actors side by side; the study limits how many
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

from orchestrator.config import ResourcesConfig  # noqa: E402
from vitaclip.errors import InputError  # noqa: E402

# Settings that workers share with the driver; credentials are their node's own.
_FORWARDED = ("VITACLIP_", "S3_", "AWS_REGION", "AWS_DEFAULT_REGION")
_FOLDER_PREFIX = "vitaclip-"
_OWNER_FILE = "owner.json"
_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_session(address: str | None, resources: ResourcesConfig) -> Iterator[None]:
    """Connects to the cluster at ``address``, or runs an own one on this machine until the end of the block.

    Raises:
        InputError: no cluster answers, or it can never hold what the study asks for.
    """
    if address is None:
        reap_leftovers()
    with _local_ray(resources) if address is None else _remote_ray(address):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init has put its own there
        if address is not None:
            check_capacity(_cluster_capacity(), resources, f"the cluster at {address}")
        yield


def check_capacity(found: dict[str, float], resources: ResourcesConfig, place: str) -> None:
    """Raises InputError if the trials could never run at once: they would wait for each other for ever."""
    trials = resources.max_concurrent_trials
    for kind, amount in resources.per_worker.items():
        need, have = resources.num_workers * amount, found.get(kind, 0.0)
        if need * trials > have:
            raise InputError(
                f"resources: {trials} trials at once need {need * trials:g} {kind} ({need:g} each), "
                f"{place} has {have:g}; lower max_concurrent_trials, num_workers or the needs of a worker"
            )


def _cluster_capacity() -> dict[str, float]:
    """What the cluster has, or, if it grows by itself, what it may have."""
    now = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {kind: max(now.get(kind, 0), limit.get(kind, 0)) for kind in now.keys() | limit.keys()}


def check_local_resources(resources: ResourcesConfig) -> None:
    """The same for this machine, without starting anything."""
    import torch

    found = {"CPU": float(num_cpus()), "GPU": float(torch.cuda.device_count())}
    check_capacity(found, resources, "this machine")


def num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reap_leftovers() -> None:
    """Ends the Ray processes and removes the folders of drivers on this machine that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        if (folder / _OWNER_FILE).is_file() and not _owner_lives(folder):
            _kill_processes_of(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _local_ray(resources: ResourcesConfig) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    process = psutil.Process()
    (folder / _OWNER_FILE).write_text(json.dumps({"pid": process.pid, "started": process.create_time()}))
    before = os.environ.get("TMPDIR")
    _use_temporary_folder(
        str(folder / "scratch")
    )  # for the workers too: whoever is killed leaves nothing behind
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus() + resources.cpus_per_worker,  # so that benchmarks need not wait for training
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder / "ray"),
        )
        yield
    finally:
        ray.shutdown()
        _use_temporary_folder(before)
        _kill_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _use_temporary_folder(path: str | None) -> None:
    tempfile.tempdir = path
    if path is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = path
        Path(path).mkdir(exist_ok=True)


@contextmanager
def _remote_ray(address: str) -> Iterator[None]:
    variables = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
    variables |= {name: os.environ[name] for name in _ENVIRONMENT} | {"RAY_ADDRESS": address}
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
            f"RAY_ADDRESS: no cluster answers at {address}: {reason}; start it, or unset RAY_ADDRESS to run here"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _owner_lives(folder: Path) -> bool:
    owner = json.loads((folder / _OWNER_FILE).read_text())
    with suppress(psutil.Error):
        return bool(psutil.Process(owner["pid"]).create_time() == owner["started"])
    return False


def _kill_processes_of(folder: Path) -> None:
    """Kills what names this folder in its command line or environment: the Ray processes started with it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), process.environ().get("TMPDIR", "")]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                process.kill()
