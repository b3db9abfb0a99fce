"""optuna-dashboard opens a study's ``optuna.db`` in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.reporting.page import write_report
from orchestrator.reporting.study_data import read_study
from orchestrator.storage.stores.local import LocalStore
from testing.servers.browser import CHROMIUM, open_tab
from testing.servers.s3_server import free_port
from testing.servers.web_program import serving
from testing.study_fixtures import new_record, run_trial

pytestmark = [
    pytest.mark.slow,  # it installs the dashboard: nothing else of the project needs it
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open it in"),
]
_START = "import sys; from optuna_dashboard._cli import main; main()"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dashboard and its server (9 MB); Optuna is the project's own."""
    folder = tmp_path_factory.mktemp("dashboard")
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
    packages = ["--target", str(folder), "optuna-dashboard==0.21.0", "bottle==0.13.4"]
    done = subprocess.run([*command, *packages], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def serving_dashboard(dashboard: Path, database: Path) -> Iterator[str]:
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    command = [sys.executable, "-c", _START, f"sqlite:///{database}", *options]
    environment = os.environ | {"PYTHONPATH": str(dashboard), "HOME": str(database.parent)}
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/api/studies", environment):
        yield url


def test_the_dashboard_shows_the_reports_study(dashboard: Path, tmp_path: Path) -> None:
    record = new_record(LocalStore(tmp_path / "store"))
    for number, top1 in enumerate([0.2, 0.6, 0.5, 0.4]):
        run_trial(record, number, tmp_path / "c", top1 / 2, top1)
    run_trial(record, 4, tmp_path / "c", 0.1, state="pruned")
    write_report(read_study(record), tmp_path / "report")
    database = tmp_path / "report/optuna.db"
    with serving_dashboard(dashboard, database) as url, open_tab() as tab:
        tab.go(f"{url}/dashboard/studies/1")
        tab.wait_for("document.body.innerText.includes('Best Trial (number=1)')")
        tab.wait_for("document.querySelectorAll('.main-svg').length > 0")
        assert "depth (id=1)" in tab.text()
        assert "prompts.depth: 1" in tab.text()
        assert tab.seen.errors == []
