"""The files of infra/, each by a validator of its kind, and the promises that its documents
make.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from mlflow import MlflowClient
from packaging.version import Version
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.monitoring.prometheus import GAUGES
from testing.mlflow_runs import runs_of
from testing.paths import ROOT
from testing.servers.prometheus import PROMTOOL

INFRA = ROOT / "infra"
ALERT_TESTS = INFRA / "monitoring/alerts.test.yml"
BIN = Path(sys.executable).parent
KUBERNETES_VERSION = "1.37"
MANIFESTS = sorted(
    path for path in (INFRA / "kubernetes").rglob("*.yaml") if path.name != "kustomization.yaml"
)
COMPOSE_FILES = sorted((INFRA / "compose").glob("compose*.yaml"))


def objects_of(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def all_objects() -> list[dict[str, Any]]:
    return [item for path in MANIFESTS for item in objects_of(path)]


def run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The image


def test_dockerfile_passes_hadolint() -> None:
    run(BIN / "hadolint", "--config", INFRA / "docker/.hadolint.yaml", INFRA / "docker/Dockerfile")


def test_hadolint_refuses_a_bad_dockerfile(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN apt-get install wget\n")
    with pytest.raises(AssertionError, match="DL3006"):
        run(BIN / "hadolint", "--config", INFRA / "docker/.hadolint.yaml", bad)


def test_image_ends_as_a_user_that_is_not_root() -> None:
    users = re.findall(r"^USER (\S+)$", (INFRA / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert users == ["1000"]


def test_image_is_given_all_that_it_copies() -> None:
    allowed = re.findall(
        r"^!(\S+)$", (INFRA / "docker/Dockerfile.dockerignore").read_text(), re.MULTILINE
    )
    assert {
        "requirements.lock",
        "pyproject.toml",
        "orchestrator",
        "vitaclip",
        "experiments",
    } <= set(allowed)
    assert [name for name in allowed if name != "README.md" and not (ROOT / name).exists()] == []


# Digests of images

DIGEST = "sha256:" + "5" * 64


def image_names(path: Path) -> list[str]:
    """The images that a file says are to be run or built upon."""
    return re.findall(r"^(?:FROM|\s*image:) (\S+)", path.read_text(), re.MULTILINE)


@pytest.fixture
def only_docker(tmp_path: Path) -> dict[str, str]:
    """An environment whose docker knows of every image one digest, and nothing else."""
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] || exit 1\n'
        f'echo "$4" >> {tmp_path}/asked\necho {DIGEST}\n'
    )
    docker.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def pinned(environment: dict[str, str]) -> dict[str, str]:
    """What pin-images.sh adds to .env."""
    script = INFRA / "compose/pin-images.sh"
    done = subprocess.run(
        ["sh", script], env=environment, capture_output=True, text=True, check=True
    )
    return dict(line.split("=") for line in done.stdout.splitlines())


def test_every_image_of_compose_and_its_base_take_a_digest(
    only_docker: dict[str, str], tmp_path: Path
) -> None:
    digests = pinned(only_docker)
    names = [
        name for path in [*COMPOSE_FILES, INFRA / "docker/Dockerfile"] for name in image_names(path)
    ]
    foreign = [name for name in names if name != "vitaclip-orchestrator"]
    assert len(foreign) == 8
    plain = set()
    for name in foreign:
        tagged, variable = re.fullmatch(r"(\S+:[\w.-]+)\$\{(\w+)-?\}", name).groups()  # type: ignore[union-attr]
        assert digests[variable] == f"@{DIGEST}"
        plain.add(tagged)
    assert set((tmp_path / "asked").read_text().split()) == plain
    assert digests.keys() == {re.search(r"(\w+)-?\}", name)[1] for name in foreign}  # type: ignore[index]
    build = objects_of(INFRA / "compose/compose.yaml")[0]["x-ray"]["build"]
    assert build["args"] == {"PYTHON_DIGEST": "${PYTHON_DIGEST-}"}


def test_a_digest_that_cannot_be_looked_up_is_an_error(
    only_docker: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        pinned(only_docker)


@pytest.mark.parametrize("folder", ["kubernetes", "aws"])
def test_the_documented_commands_pin_every_image(
    only_docker: dict[str, str], tmp_path: Path, folder: str
) -> None:
    shutil.copytree(INFRA / folder, tmp_path / "infra" / folder)
    shell = "\n".join(
        re.findall(
            r"^```bash\n(.*?)^```",
            (INFRA / folder / "README.md").read_text(),
            re.MULTILINE | re.DOTALL,
        )
    ).replace("\\\n", "")
    wanted = r"^(?:digest|repository|own|sed).*"
    commands = "\n".join(re.findall(wanted, shell, re.MULTILINE))
    environment = only_docker | {"REGISTRY": "registry.example.com/team"}
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, env=environment, check=True)
    names = [name for path in (tmp_path / "infra").rglob("*.yaml") for name in image_names(path)]
    assert len(names) == {"kubernetes": 5, "aws": 1}[folder]
    assert all(re.fullmatch(rf"\S+:[\w.-]+@{DIGEST}", name) for name in names), names
    assert not any("CHANGE-ME" in name for name in names)


# Compose


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_file_matches_composes_schema(path: Path) -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_compose_publishes_on_loopback_only() -> None:
    services = [
        service for path in COMPOSE_FILES for service in objects_of(path)[0]["services"].values()
    ]
    published = [port for service in services for port in service.get("ports", ())]
    assert published
    assert all(port.startswith(("127.0.0.1:", "${TLS_BIND:-127.0.0.1}:")) for port in published), (
        published
    )


def test_compose_takes_every_secret_from_the_env_file() -> None:
    text = "".join(path.read_text() for path in COMPOSE_FILES)
    required = set(re.findall(r"\$\{(\w+):\?", text))
    script = subprocess.run(
        ["sh", INFRA / "compose/new-secrets.sh"], capture_output=True, text=True, check=True
    )
    secrets = dict(line.split("=") for line in script.stdout.splitlines())
    assert secrets.keys() == required
    assert all(re.fullmatch(r"[0-9a-f]{32}", secret) for secret in secrets.values())
    assert len(set(secrets.values())) == len(secrets)


def test_only_the_head_knows_mlflows_password() -> None:
    services = objects_of(INFRA / "compose/compose.yaml")[0]["services"]
    knowing = {
        name
        for name, service in services.items()
        if "MLFLOW_TRACKING_PASSWORD" in str(service.get("environment"))
    }
    assert knowing == {"mlflow", "ray-head"}
    workers = [
        group
        for item in all_objects()
        for group in item.get("spec", {}).get("workerGroupSpecs", ())
    ]
    assert workers
    assert "MLFLOW" not in str(workers)


# Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_objects_match_their_schemas(path: Path) -> None:
    for item in objects_of(path):
        if not item["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template inside a KubeRay object."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("template", "submitterPodTemplate"):
                yield inner
            else:
                yield from pod_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_templates(inner)


def test_pod_templates_of_kuberay_match_the_schema_of_pods() -> None:
    """KubeRay's own schemas are in no package; its objects are mostly pod templates, and these are
    checked.
    """
    templates = [
        template
        for item in all_objects()
        if item["apiVersion"].startswith("ray.io/")
        for template in pod_templates(item)
    ]
    assert len(templates) == 4  # head, two groups of workers, submitter
    for template in templates:
        item = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "checked"},
            "template": template,
        }
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


def test_a_misspelt_field_is_refused() -> None:
    item = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"selectors": {"app": "x"}},
    }
    with pytest.raises(kubernetes_validate.ValidationError, match="selectors"):
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders kustomizations; it is not here"
)
@pytest.mark.parametrize("folder", ["base", "cluster", "job"])
def test_kustomizations_render(folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", INFRA / "kubernetes" / folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    items = list(yaml.safe_load_all(done.stdout))
    if folder == "job":  # the study's own cluster is the standing one's specification
        (cluster,) = objects_of(INFRA / "kubernetes/cluster/raycluster.yaml")
        assert [item["kind"] for item in items] == ["RayJob"]
        assert items[0]["spec"]["rayClusterSpec"] == cluster["spec"]


def test_nothing_in_kubernetes_is_public_or_holds_a_secret() -> None:
    kinds = {item["kind"] for item in all_objects()}
    assert "NetworkPolicy" in kinds
    assert "Secret" not in kinds
    services = [item["spec"] for item in all_objects() if item["kind"] == "Service"]
    assert all(service.get("type", "ClusterIP") == "ClusterIP" for service in services)
    assert all(item["spec"]["tls"] for item in all_objects() if item["kind"] == "Ingress")


def test_every_container_is_unprivileged_and_limited() -> None:
    specs = [template["spec"] for item in all_objects() for template in pod_templates(item)]
    assert len(specs) == 6
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["limits"]["memory"]


def test_ray_asks_for_a_token_and_has_the_locks_version() -> None:
    (cluster,) = objects_of(INFRA / "kubernetes/cluster/raycluster.yaml")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert (
        f"\nray=={cluster['spec']['rayVersion']} \\\n" in (ROOT / "requirements.lock").read_text()
    )
    compose = objects_of(INFRA / "compose/compose.yaml")[0]
    for name in ("ray-head", "ray-worker"):
        assert compose["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_MODE=token" in (INFRA / "docker/Dockerfile").read_text()


def test_manifests_name_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = "".join(path.read_text() for path in [*MANIFESTS, INFRA / "aws/cluster.yaml"])
    assert set(re.findall(r"vitaclip-orchestrator:(\S+)", text)) == {version}


# AWS


def test_cluster_file_passes_rays_own_schema() -> None:
    """That of the Ray which `infra/aws/README.md` has it read by: the locked one. Ray before 2.60
    knows no nodes that are reached by their ids, and says so.
    """
    config = prepare_config(yaml.safe_load((INFRA / "aws/cluster.yaml").read_text()))
    refusal = pytest.raises(Exception, match="'ssh_proxy_use_node_id' was unexpected")
    with nullcontext() if Version(ray.__version__) >= Version("2.60") else refusal:
        validate_config(config)
    assert config["provider"]["use_internal_ips"]
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert [
        name
        for name, node in nodes.items()
        if "spot" in str(node["node_config"].get("InstanceMarketOptions"))
    ] == ["gpu-spot"]
    assert all(
        node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        for node in nodes.values()
    )


def test_foundation_passes_cfn_lint() -> None:
    run(BIN / "cfn-lint", INFRA / "aws/foundation.yaml")


class _Metadata(BaseHTTPRequestHandler):
    """An instance's metadata service that gives notice at the third question."""

    questions = 0

    def do_PUT(self) -> None:
        self._answer(200, b"session")

    def do_GET(self) -> None:
        type(self).questions += 1
        signed = self.headers["X-aws-ec2-metadata-token"] == "session"
        self._answer(200 if signed and self.questions == 3 else 404, b'{"action": "terminate"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


def test_spot_notice_drains_the_node(tmp_path: Path) -> None:
    fake_ray = tmp_path / "ray"
    fake_ray.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    fake_ray.chmod(0o755)
    server = HTTPServer(("127.0.0.1", 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "METADATA_URL": f"http://127.0.0.1:{server.server_port}",
        "POLL_S": "0.05",
    }
    subprocess.run(
        ["sh", INFRA / "aws/drain-on-notice.sh"], env=environment, timeout=300, capture_output=True
    )
    server.shutdown()
    assert _Metadata.questions == 3
    assert "drain-node --reason DRAIN_NODE_REASON_PREEMPTION" in (tmp_path / "called").read_text()


# Slurm


@pytest.mark.parametrize("name", ["sweep", "join"])
def test_a_slurm_job_is_warned_before_its_end_and_may_be_queued_again(name: str) -> None:
    batch = INFRA / f"slurm/{name}.sbatch"
    run("bash", "-n", batch)
    lines = batch.read_text().splitlines()
    # append: a job that starts again would empty its output
    needed = {"--ntasks-per-node=1", "--requeue", "--open-mode=append", "--signal=B:USR1@180"}
    assert needed <= {line.split()[1] for line in lines if line.startswith("#SBATCH")}
    # the signal comes to the process of the batch file
    assert lines[-1].startswith(f"exec python infra/slurm/job.py {name} ")


# One machine, without Docker


@pytest.mark.slow  # all of its services, and a sweep through them
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("initdb") is None and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    reason="PostgreSQL's programs are not here: install the package postgresql",
)
def test_local_services_take_a_sweep_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    specification = importlib.util.spec_from_file_location("local_run", INFRA / "local/run.py")
    assert specification is not None
    assert specification.loader is not None
    local = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(local)
    settings = ("name=local", "search.num_trials=2", "train.epochs=1")
    with local.Services() as services:
        code = services.sweep(
            "experiments/prompt_depth.yaml", *(f"--set={setting}" for setting in settings)
        )
        assert code == 0
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", services.secrets["MLFLOW_TRACKING_PASSWORD"])
        runs = runs_of(MlflowClient(services.mlflow_url), "local")
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("local", "FINISHED"),
        ("trial 0000", "FINISHED"),
        ("trial 0001", "FINISHED"),
    ]


# Documents


@pytest.mark.parametrize("folder", ["aws", "compose", "docker", "kubernetes", "local"])
def test_readme_has_its_parts(folder: str) -> None:
    headings = re.findall(r"^## (.+)$", (INFRA / folder / "README.md").read_text(), re.MULTILINE)
    assert headings[:4] == ["Bring up", "Run a sweep", "Tear down", "What it costs"]


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = [*INFRA.rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in documents
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert broken == []


# Monitoring


def test_dashboard_is_the_generated_one_and_asks_for_what_a_sweep_publishes() -> None:
    folder = INFRA / "monitoring"
    made = subprocess.run(
        [sys.executable, folder / "make_dashboard.py"], capture_output=True, text=True, check=True
    )
    dashboard = (folder / "vitaclip-dashboard.json").read_text()
    assert made.stdout == dashboard
    asked = set(re.findall(r"ray_vitaclip_(\w+)", dashboard))
    assert asked == set(GAUGES)
    documented = set(re.findall(r"`ray_vitaclip_(\w+)", (folder / "README.md").read_text()))
    assert documented == set(GAUGES)


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (apt-get install prometheus)")
def test_each_alert_is_raised_when_it_should_be_and_only_then() -> None:
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = subprocess.run(
            [str(PROMTOOL), *words], cwd=INFRA / "monitoring", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_ask_for_what_a_sweep_publishes_and_are_explained() -> None:
    rules = (INFRA / "monitoring/alerts.yml").read_text()
    assert set(re.findall(r"ray_vitaclip_(\w+)", rules)) < set(GAUGES)
    readme = (INFRA / "monitoring/README.md").read_text()
    names = re.findall(r"alert: (\w+)", rules)
    assert re.findall(r"^\| `(Vitaclip\w+)`", readme, re.MULTILINE) == names
    assert set(names) == set(re.findall(r"alertname: (\w+)", ALERT_TESTS.read_text()))
