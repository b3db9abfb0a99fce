"""Checks on every node of a cluster before the first trial: does each one see the driver's store
and videos?

A folder that exists on one host only is the commonest mistake on a cluster. Nodes that an
autoscaler adds later are not seen here; a trial that finds no video there fails with the path.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.config import ResourcesConfig, StudyConfig
from orchestrator.execution.preflight import dataset_splits
from orchestrator.execution.scratch import reap_scratch
from orchestrator.settings import Settings
from orchestrator.storage.stores.base import Store
from orchestrator.storage.stores.opening import open_store
from vitaclip.data.datasets import load_dataset
from vitaclip.data.identity import DataIdentity, identify
from vitaclip.errors import InputError, VitaClipError

_TIMEOUT_S = 900.0  # the quickstart's world may have to be rendered on each node
_NUM_SAMPLED = 64  # clips of a split whose files are looked for

Digests = Mapping[tuple[str, str], DataIdentity]  # by dataset and split


def check_settings(settings: Settings) -> None:
    """A cluster's job runs in a folder that Ray deletes: no result may be kept there by default.

    Raises:
        InputError: names the variable to set.
    """
    places = {
        "VITACLIP_STORE": ("store", "s3://bucket/prefix, or a folder that every node shares"),
        "MLFLOW_TRACKING_URI": (
            "tracking_uri",
            "an MLflow server's address, or sqlite:////folder/mlflow.db",
        ),
    }
    for variable, (field, allowed) in places.items():
        if field not in settings.model_fields_set:
            raise InputError(
                f"{variable}: not set, and RAY_ADDRESS names a cluster; set it to {allowed}"
            )


def check_nodes(config: StudyConfig, store_uri: str) -> None:
    """Looks at the store and the study's videos from every node that may train. Ray must be
    connected.

    Raises:
        InputError: one line per node that does not see what the driver sees.
    """
    digests = {split: identify(load_dataset(*split)) for split in dataset_splits(config)}
    store, probe = open_store(store_uri), f".probe-{uuid.uuid4().hex}/driver.json"
    store.write_json(probe, {"probe": True})
    try:
        problems = _problems(store_uri, probe, digests, config.resources)
    finally:
        store.delete(probe)
    if problems:
        raise InputError(
            "\n".join(f"node {address}: {text}" for address, text in sorted(problems.items()))
        )


def _problems(
    store_uri: str, probe: str, digests: Digests, resources: ResourcesConfig
) -> dict[str, str]:
    tasks = {
        _look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(store_uri, probe, digests): node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and _may_train(node["Resources"], resources)
    }
    done, late = (
        ray.wait(list(tasks), num_returns=len(tasks), timeout=_TIMEOUT_S) if tasks else ([], [])
    )
    problems = {tasks[task]: f"did not answer within {_TIMEOUT_S:.0f} s" for task in late}
    for task in done:
        try:
            found = ray.get(task)
        except ray.exceptions.RayError as error:
            found = str(error).strip().splitlines()[-1]
        if found:
            problems[tasks[task]] = found
    return problems


def _may_train(has: Mapping[str, float], resources: ResourcesConfig) -> bool:
    return all(has.get(kind, 0) >= need for kind, need in resources.per_worker.items())


@ray.remote(num_cpus=0, max_retries=0)
def _look(store_uri: str, probe: str, digests: Digests) -> str | None:
    """What is wrong on this node, after clearing up what dead workers left there; None if nothing
    is.
    """
    reap_scratch()
    try:
        return _store_problem(open_store(store_uri), probe) or _data_problem(digests)
    except (VitaClipError, OSError) as error:
        return str(error)


def _store_problem(store: Store, probe: str) -> str | None:
    if store.exists(probe):
        return None
    return (
        f"store {store.uri}: does not hold what the driver wrote there a moment ago; set "
        "VITACLIP_STORE to s3://bucket/prefix or to a folder that every node shares"
    )


def _data_problem(digests: Digests) -> str | None:
    for (name, split), digest in digests.items():
        manifest = load_dataset(name, split)
        paths = [clip.path for clip in manifest.clips]
        sample = random.Random(0).sample(paths, min(len(paths), _NUM_SAMPLED))
        if missing := [path for path in sample if not Path(path).is_file()]:
            return (
                f"dataset {name}, split {split}: {len(missing)} of {len(sample)} clips looked for "
                f"are not there, such as {missing[0]}"
            )
        if differing := digest.differences(identify(manifest)):
            return f"dataset {name}, split {split}: not what the driver has: {'; '.join(differing)}"
    return None
