"""Commands whose packages are not installed name the extra that brings them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from testing.paths import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# The project's metadata, as this source tree would be installed.
REQUIREMENTS = [f'{text}; extra == "{extra}"' for extra, texts in EXTRAS.items() for text in texts]
WITHOUT = f"""
import sys
from importlib import metadata
package, *words = sys.argv[1:]
metadata.requires = lambda name: ["torch>=2", *{REQUIREMENTS}]
sys.modules[package] = None
from orchestrator import cli
sys.exit(cli.main(words))
"""


def run_without(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command where a package cannot be imported."""
    environment = {"PYTHONPATH": str(ROOT), "VITACLIP_STORE": "s3://bucket/studies"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, package, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "package", "extra", "what"),
    [
        (["report", "depth"], "plotly", "report", "`vitaclip report`"),
        (["report", "depth", "--tensorboard"], "tensorboard", "report", "`vitaclip report`"),
        (["ls"], "boto3", "s3", "S3"),
        (["compare", "a/1", "a/2"], "scipy", "orchestrator", "`vitaclip compare`"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    words: list[str], package: str, extra: str, what: str
) -> None:
    done = run_without(package, *words)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {what} needs the package {package}, which is not installed; "
        f"install the extra {extra}: pip install 'vitaclip-orchestrator[{extra}]'\n"
    )


def test_a_module_of_no_extra_is_an_error_of_the_code() -> None:
    done = run_without("ruamel", "control", "depth")
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'ruamel" in done.stderr
