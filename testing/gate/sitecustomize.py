"""Makes the processes of a sweep under test wait at a file, so that a test can strike at a moment
that is certain.

Python runs this module when it starts, if its folder is on the path; :class:`testing.sweeps.Gate`
puts it there. The variable VITACLIP_TEST_GATE names a file that holds a regular expression. Whoever
opens a path in which the expression is found leaves the file ``<gate>.reached-<checksum of the
expression>``, which holds its process id, and waits until the gate is gone.
"""

from __future__ import annotations

import os
import re
import sys
import time
import zlib

GATE = os.environ.get("VITACLIP_TEST_GATE", "")
_looking = False


def _closed(path: str) -> bool:
    global _looking
    if _looking or not os.path.exists(GATE):  # noqa: PTH110  # pathlib is not worth its import in every process
        return False
    _looking = True  # opening the gate's own file asks again
    try:
        with open(GATE) as gate:  # noqa: PTH123
            place = gate.read()
        if not re.search(place, path):
            return False
        partial = f"{GATE}.{os.getpid()}"
        with open(partial, "w") as reached:  # noqa: PTH123
            reached.write(str(os.getpid()))
        os.replace(partial, f"{GATE}.reached-{zlib.crc32(place.encode())}")  # noqa: PTH105
        return True
    except FileNotFoundError:  # it was opened a moment ago
        return False
    finally:
        _looking = False


def _wait(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        while _closed(arguments[0]):
            time.sleep(0.02)


if GATE:
    sys.addaudithook(_wait)
