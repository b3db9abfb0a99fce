"""``python -m vitaclip``: predict one's own videos, convert checkpoints, look after data."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vitaclip.cli.app import app
from vitaclip.cli.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the library's commands; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run(app, "python -m vitaclip", arguments)


if __name__ == "__main__":
    sys.exit(main())
