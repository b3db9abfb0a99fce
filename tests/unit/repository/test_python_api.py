"""What the packages export."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["orchestrator", "vitaclip"])
def test_the_packages_list_what_they_export_and_import_it_when_asked(package: str) -> None:
    code = (
        f"import sys, {package} as package; before = len(sys.modules); names = package.__all__; "
        "assert set(names) <= set(dir(package)); "
        "assert not {'torch', 'pydantic'} & sys.modules.keys(); "
        "assert all(callable(getattr(package, name)) for name in names); "
        "import vitaclip.prediction, vitaclip.evaluation; "
        "assert all(callable(getattr(package, name)) for name in names); package.none"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith(f"module '{package}' has no attribute 'none'\n")
