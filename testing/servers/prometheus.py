"""A Prometheus that scrapes one address, with the project's alerts."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from testing.paths import ROOT
from testing.servers.s3_server import free_port

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Prometheus:
    """Where it answers."""

    url: str

    def get(self, path: str) -> Any:
        """What its API has under ``/api/v1/``."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[float]:
        """The values of an expression now."""
        found = self.get(f"query?query={quote(expression)}")["result"]
        return [float(sample["value"][1]) for sample in found]

    def names(self) -> set[str]:
        """Every metric that it has ever seen."""
        return set(self.get("label/__name__/values"))

    def rules(self) -> list[dict[str, Any]]:
        """The alerts, with how their last evaluation went."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """One that scrapes ``target`` every second, with the rules of ``infra/monitoring``.

    Args:
        folder: for its config, data and log.
        target: host and port.
    """
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "infra/monitoring/alerts.yml")],
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": address,
    }
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [str(PROMETHEUS), *(f"--{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_ready(process, f"http://{address}", folder / "prometheus.log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return
