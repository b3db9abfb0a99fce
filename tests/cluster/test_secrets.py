"""Secrets of a sweep on a cluster: who may know them does, and nobody and nothing else.

The head knows MLflow's password, each node has keys of its own for the store, and a driver outside
has other ones.
"""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest
import yaml
from ray.tune.execution import class_cache

from orchestrator.execution.cluster import worker_settings
from testing.paths import ROOT
from testing.servers.mlflow_server import MlflowServer
from testing.servers.ray_cluster import RayCluster
from testing.servers.s3_server import S3Server, s3_server
from testing.sweeps import GATE_PATH, Gate, start_sweep, wait_until
from tests.integration.test_sweep import STUDY

# for each place where a secret is planted: a value that is found nowhere else
HEAD_PASSWORD, HEAD_USER_INFO = "planted-on-the-head", "planted-in-the-heads%21address"
DRIVER_PASSWORD, DRIVER_USER_INFO = "planted-at-the-driver", "planted-in-the-drivers%21address"
FOREIGN = "planted-for-another-program"


@dataclass(frozen=True)
class Place:
    """A cluster, a store and an MLflow server, and what is secret in them."""

    cluster: RayCluster
    store: S3Server
    driver_store: S3Server  # the same, by other keys
    tracking: MlflowServer

    @property
    def secrets(self) -> list[str]:
        planted = [HEAD_PASSWORD, HEAD_USER_INFO, DRIVER_PASSWORD, DRIVER_USER_INFO, FOREIGN]
        decoded = [secret.replace("%21", "!") for secret in planted if "%21" in secret]
        return [
            *planted,
            *decoded,
            self.cluster.token,
            self.store.secret_key,
            self.driver_store.secret_key,
        ]


def tracking_settings(server: MlflowServer, user_info: str, password: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": server.uri.replace("http://", f"http://user:{user_info}@"),
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def credentials(store: S3Server) -> dict[str, str]:
    return {name: value for name, value in store.environment().items() if name.startswith("AWS_")}


def with_other_keys(server: S3Server) -> S3Server:
    iam = boto3.session.Session().client(
        "iam",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    key = iam.create_access_key(UserName="tester")["AccessKey"]
    return S3Server(server.endpoint_url, key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tracking = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="v") as folder,
        s3_server() as store,
        RayCluster(Path(folder)) as cluster,
    ):
        store.create_bucket("secrets")
        tracking.start()
        try:
            everywhere = {**credentials(store), "PYTHONPATH": GATE_PATH}
            on_head = tracking_settings(tracking, HEAD_USER_INFO, HEAD_PASSWORD)
            cluster.start_node("--num-cpus", "0", environment=everywhere | on_head)
            # a folder of its own: where nodes share one, a job's code is unpacked twice to the same
            # place
            own_folder = ("--temp-dir", f"{folder}/w")
            cluster.start_node("--num-cpus", "3", *own_folder, environment=everywhere)
            yield Place(cluster, store, with_other_keys(store), tracking)
        finally:
            tracking.kill()


@pytest.fixture
def workplace(motion_dataset: str, tmp_path: Path) -> Path:
    study = STUDY.replace("epochs: 3", "epochs: 1").replace("num_trials: 4", "num_trials: 2")
    (tmp_path / "study.yaml").write_text(study)
    return tmp_path


def settings(place: Place, folder: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What is no secret: where the store and the videos are."""
    named = {
        name: value for name, value in environment.items() if name.startswith("VITACLIP_DATA_")
    }
    server = {
        name: value for name, value in place.store.environment().items() if name.startswith("S3_")
    }
    return {
        **named,
        **server,
        "AWS_REGION": "us-east-1",
        "VITACLIP_STORE": f"s3://secrets/{folder}",
    }


def test_workers_are_given_settings_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "VITACLIP_STORE": "s3://secrets/study",
        "VITACLIP_DATA_MOTIONS": "/videos",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9000",
        "S3_ADDRESSING_STYLE": "path",
        "AWS_REGION": "us-east-1",
    }
    secret = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "S3_SECRET_KEY", "S3_ENDPOINT_URL_KEY"]
    secret += [
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "RAY_AUTH_TOKEN",
    ]
    for name in list(os.environ):
        if name.startswith(("VITACLIP_", "S3_", "AWS_")):
            monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in secret:
        monkeypatch.setenv(name, "planted")
    assert worker_settings() == settings


def test_tune_passes_no_credentials_on() -> None:
    """It would put those into the runtime environment of each trial's actor."""
    importlib.import_module("orchestrator.execution.driver")
    assert class_cache.ENV_VARS_TO_PROPAGATE
    named = [name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("RAY_")]
    assert not [name for name in named if re.search("AWS|KEY|TOKEN|SECRET|PASSWORD", name)]


@pytest.mark.slow  # a real cluster of two nodes: with the other one about two minutes on two cores
def test_a_job_tells_no_secret(place: Place, workplace: Path) -> None:
    gate, cluster = Gate(workplace, r"/checkpoint\.json$"), place.cluster
    environment = yaml.safe_load((ROOT / "infra/job.yaml").read_text())
    environment["env_vars"] |= settings(place, "job", cluster.environment) | gate.environment
    (workplace / "job.yaml").write_text(yaml.safe_dump(environment))
    log = workplace / "log.txt"
    with log.open("w") as output:
        job = cluster.start_job(
            *("--working-dir", str(ROOT), "--runtime-env", str(workplace / "job.yaml")),
            *("--", "python", "-m", "orchestrator.sweep", str(workplace / "study.yaml")),
            output=output,
        )
    wait_until(gate.is_reached, job, log)
    assert_no_command_line_holds(place.secrets)
    trainer = psutil.Process(int(gate.reached_by()))
    assert place.store.secret_key in trainer.environ().values()  # its node's own
    worker_node = cluster.processes(1)
    assert trainer in worker_node
    assert_unknown_to(worker_node, [HEAD_PASSWORD, HEAD_USER_INFO])
    gate.open()
    assert job.wait() == 0, log.read_text()
    assert "SUCCEEDED" in cluster.run("list").stdout
    assert_nothing_written_holds(place, workplace)


@pytest.mark.slow  # a real cluster of two nodes: with the other one about two minutes on two cores
def test_a_driver_outside_tells_no_secret(place: Place, workplace: Path) -> None:
    gate, cluster, log = (
        Gate(workplace, r"/checkpoint\.json$"),
        place.cluster,
        workplace / "log.txt",
    )
    own = {
        **tracking_settings(place.tracking, DRIVER_USER_INFO, DRIVER_PASSWORD),
        **credentials(place.driver_store),
        "S3_SECRET_KEY": FOREIGN,
        "RAY_ADDRESS": cluster.address,
    }
    environment = {**cluster.environment, **settings(place, "driver", cluster.environment), **own}
    sweep = start_sweep(workplace, log, environment | gate.environment)
    wait_until(gate.is_reached, sweep, log)
    assert_no_command_line_holds(place.secrets)
    assert place.driver_store.secret_key in psutil.Process(sweep.pid).environ().values()
    nodes = [process for number in (0, 1) for process in cluster.processes(number)]
    assert psutil.Process(int(gate.reached_by())) in nodes
    secrets = [DRIVER_PASSWORD, DRIVER_USER_INFO, FOREIGN, place.driver_store.secret_key]
    assert_unknown_to(nodes, secrets)
    gate.open()
    assert sweep.wait() == 0, log.read_text()
    assert_nothing_written_holds(place, workplace)


def assert_no_command_line_holds(secrets: list[str]) -> None:
    """Of any process of this machine: every user can read them all."""
    lines = [
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    ]
    assert any("raylet" in line for line in lines)
    assert [line for line in lines for secret in secrets if secret in line] == []


def assert_unknown_to(processes: list[psutil.Process], secrets: list[str]) -> None:
    knowing = []
    for process in processes:
        try:
            values = process.environ().values()
            knowing += [
                (process.name(), secret)
                for secret in secrets
                if any(secret in value for value in values)
            ]
        except psutil.Error:  # it has ended meanwhile
            continue
    assert knowing == []


def assert_nothing_written_holds(place: Place, workplace: Path) -> None:
    """Neither Ray's logs, sessions and lists, nor the output, nor the store, nor MLflow's database
    and artifacts.
    """
    contents = {
        f"ray list {kind}": place.cluster.listed(kind).encode() for kind in ("jobs", "runtime-envs")
    }
    for root in (place.cluster.folder, place.tracking.folder, workplace):
        contents |= {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=place.store.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=place.store.access_key,
        aws_secret_access_key=place.store.secret_key,
    )
    stored = [item["Key"] for item in client.list_objects_v2(Bucket="secrets")["Contents"]]
    contents |= {key: client.get_object(Bucket="secrets", Key=key)["Body"].read() for key in stored}
    for wanted in ("raylet.out", "mlflow.db", "result.json", "study.json", "log.txt"):
        assert any(wanted in name for name in contents), wanted
    holding = [
        (name, secret)
        for name, content in contents.items()
        for secret in place.secrets
        if secret.encode() in content
    ]
    assert holding == []
