"""``python -m orchestrator.sync STUDY``: brings MLflow up to a study's record, after a sweep could
not reach it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from orchestrator import command
from orchestrator.settings import Settings, without_password
from orchestrator.tracking.client import check_tracking
from orchestrator.tracking.tracker import Tracker


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.sync", description=__doc__)
    parser.add_argument(
        "studies", nargs="+", metavar="STUDY", help="studies of the store that no sweep is running"
    )
    return command.run(parser, _sync, arguments)


def _sync(options: argparse.Namespace, console: Console) -> None:
    uri = Settings().tracking_uri
    check_tracking(uri)
    for name in options.studies:
        record = command.open_study(name)
        tracker = Tracker(uri, record)
        tracker.reconcile()
        tracker.stop()
        console.print(
            f"{name}: {len(record.trials())} trials are in MLflow at {without_password(uri)}",
        )


if __name__ == "__main__":
    sys.exit(main())
