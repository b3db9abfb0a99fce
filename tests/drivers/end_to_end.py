"""The quickstart's sweep on servers, and again while they fail.

Run it with ``python -m tests.drivers.end_to_end [--picture FILE.png]``.

The store is on an S3-protocol server, MLflow on a server of its own with its artifacts on S3. The
second sweep has 30% of its store's requests failing throughout (503, uploads cut in the middle,
lost answers, truncated bodies), the MLflow server killed and away for a minute, and the driver
killed half-way. It must end with the first one's results, byte for byte where they were finished
before the kill, and with every trial and epoch in MLflow once. Prints the time lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow import MlflowClient

from orchestrator.storage.stores.base import Store
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from testing.mlflow_runs import experiment_of, runs_of
from testing.paths import ROOT
from testing.servers.browser import photograph
from testing.servers.mlflow_server import MlflowServer
from testing.servers.s3_server import faulty_proxy, s3_server
from testing.sweeps import start_sweep, untimed, wait_until
from tests.drivers.chaos import first_difference
from vitaclip.data.datasets import QUICKSTART_ROOT, load_dataset

STUDY = "prompt_depth"
AWAY_S = 60.0
SHARE = 0.3


class Place:
    """Servers of its own for one sweep, and a folder that it runs in."""

    def __init__(
        self, folder: Path, mlflow: MlflowServer, environment: dict[str, str], proxy: Any
    ) -> None:
        self.folder, self.mlflow, self.environment, self.proxy = folder, mlflow, environment, proxy
        self.log = folder / "log.txt"

    @property
    def store(self) -> Store:
        return open_store("s3://studies/quickstart")

    def start(self) -> Any:
        return start_sweep(self.folder, self.log, self.environment)

    def results(self) -> dict[str, Any]:
        keys = [key for key in self.store.list(f"{STUDY}/trials") if key.endswith("/result.json")]
        return {key: self.store.read_json(key) for key in keys}

    def check_tracking(self) -> None:
        """Every trial and each of its epochs once."""
        client = MlflowClient(self.mlflow.uri)
        runs = {run.info.run_name: run for run in runs_of(client, STUDY)}
        record = StudyRecord(self.store, STUDY)
        names = [f"trial {result.number:04d}" for result in record.results()]
        assert sorted(runs) == [STUDY, *names], sorted(runs)
        for name, result in zip(names, record.results(), strict=True):
            run = runs[name]
            assert run.info.status == "FINISHED"
            assert run.info.artifact_uri.startswith(("mlflow-artifacts:", "s3:"))
            assert "result.json" in {file.path for file in client.list_artifacts(run.info.run_id)}
            history = client.get_metric_history(run.info.run_id, "val/top1")
            found = [(metric.step, metric.value) for metric in history]
            assert found == [(metrics["epoch"], metrics["val/top1"]) for metrics in result.history]

    def compare_page(self) -> str:
        """MLflow's comparison of all trials."""
        client = MlflowClient(self.mlflow.uri)
        experiment = experiment_of(client, STUDY)
        runs = client.search_runs(
            [experiment.experiment_id], order_by=["attributes.start_time ASC"]
        )
        trials = json.dumps([run.info.run_id for run in runs if run.info.run_name != STUDY])
        experiments = json.dumps([experiment.experiment_id])
        return f"{self.mlflow.uri}/#/compare-runs?runs={trials}&experiments={experiments}"


@contextmanager
def place() -> Iterator[Place]:
    """The servers run until the end of the block."""
    with (
        tempfile.TemporaryDirectory() as name,
        patch.dict(os.environ),
        s3_server() as server,
        faulty_proxy(server) as (behind, proxy),
    ):
        for bucket in ("studies", "artifacts"):
            server.create_bucket(bucket)
        os.environ |= server.environment() | {"MLFLOW_S3_ENDPOINT_URL": server.endpoint_url}
        folder = Path(name)
        shutil.copy(ROOT / "experiments" / f"{STUDY}.yaml", folder / "study.yaml")
        mlflow = MlflowServer(folder, artifacts="s3://artifacts")
        mlflow.start()
        environment = {
            **os.environ,
            **behind.environment(),
            "VITACLIP_STORE": "s3://studies/quickstart",
            "VITACLIP_DATA_QUICKSTART": str((ROOT / QUICKSTART_ROOT).absolute()),
            "VITACLIP_FRAME_CACHE": str(folder / "cache"),
            "MLFLOW_TRACKING_URI": mlflow.uri,
        }
        try:
            yield Place(folder, mlflow, environment, proxy)
        finally:
            mlflow.kill()


def run_undisturbed(here: Place) -> None:
    """The sweep, from its start to its end."""
    code = here.start().wait(1800)
    assert code == 0, here.log.read_text()


def run_disturbed(here: Place) -> dict[str, Any]:
    """The same with faults. Returns the results that were there when the driver was killed."""
    here.proxy.share = SHARE
    sweep = here.start()
    wait_until(lambda: len(here.results()) >= 2, sweep, here.log, timeout_s=1800)
    here.mlflow.kill()
    back = threading.Timer(AWAY_S, here.mlflow.start)
    back.start()
    wait_until(lambda: len(here.results()) >= 4, sweep, here.log, timeout_s=1800)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    finished = here.results()
    back.join()
    code = here.start().wait(1800)
    assert code == 0, here.log.read_text()
    return finished


def main(arguments: list[str] | None = None) -> int:
    """Both sweeps; raises AssertionError at the first difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="of MLflow's comparison of the trials"
    )
    options = parser.parse_args(arguments)
    load_dataset("quickstart", "train")
    with place() as here:
        started = time.monotonic()
        run_undisturbed(here)
        undisturbed_s = time.monotonic() - started
        here.check_tracking()
        wanted = untimed(here.results())
        if options.picture:
            photograph(here.compare_page(), options.picture)
    with place() as here:
        started = time.monotonic()
        finished = run_disturbed(here)
        disturbed_s = time.monotonic() - started
        here.proxy.share = 0.0
        here.check_tracking()
        found, counts = here.results(), here.proxy.counts
        assert not (difference := first_difference(untimed(found), wanted)), difference
        assert all(found[key] == result for key, result in finished.items())
    num_failed = sum(counts.values()) - counts["passed"]
    print(
        f"{len(wanted)} trials, the same results; {len(finished)} were finished when the driver "
        "was killed"
    )
    print(f"{num_failed} of {sum(counts.values())} requests to the store failed: {counts}")
    print(
        f"{undisturbed_s:.0f} s undisturbed, {disturbed_s:.0f} s with the faults (MLflow away for "
        f"{AWAY_S:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
