"""What the packages export."""

from __future__ import annotations

import subprocess
import sys

# In one process, for to import all of it takes seconds: first what costs nothing, then what is
# asked for.
CODE = """
import sys
import orchestrator, vitaclip
names = [(package, name) for package in (orchestrator, vitaclip) for name in package.__all__]
assert all(name in dir(package) for package, name in names)
assert not {'torch', 'pydantic'} & sys.modules.keys()
assert all(callable(getattr(package, name)) for package, name in names)
import vitaclip.prediction, vitaclip.evaluation
assert all(callable(getattr(package, name)) for package, name in names)
for package in (orchestrator, vitaclip):
    try:
        package.none
    except AttributeError as error:
        print(error)
"""


def test_the_packages_list_what_they_export_and_import_it_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stderr == ""
    packages = ("orchestrator", "vitaclip")
    wanted = [f"module '{package}' has no attribute 'none'" for package in packages]
    assert done.stdout.splitlines() == wanted
