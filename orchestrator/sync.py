"""``python -m orchestrator.sync STUDY``: brings the tracking service up to a study's record, after
a sweep could not reach it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from orchestrator import command
from orchestrator.settings import Settings
from orchestrator.tracking.service import open_service


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.sync", description=__doc__)
    parser.add_argument(
        "studies", nargs="+", metavar="STUDY", help="studies of the store that no sweep is running"
    )
    return command.run(parser, _sync, arguments)


def _sync(options: argparse.Namespace, console: Console) -> None:
    service = open_service(Settings())
    service.check()
    for name in options.studies:
        record = command.open_study(name)
        writer = service.writer(record)
        writer.reconcile()
        writer.stop()
        console.print(
            f"{name}: {len(record.trials())} trials are in {service.name} at {service.address}",
        )


if __name__ == "__main__":
    sys.exit(main())
