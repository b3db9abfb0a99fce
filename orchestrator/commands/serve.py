"""Serves a page that follows a study, until Ctrl-C."""

from __future__ import annotations

from orchestrator.live.server import LiveServer
from orchestrator.live.watch import Watch
from orchestrator.settings import Settings
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from vitaclip.terminal import Terminal


def serve_study(study: str, *, port: int, store_uri: str | None) -> None:
    """Prints the page's address, and serves it.

    Args:
        study: the study's name.
        port: on the loopback address; 0 takes any that is free.
        store_uri: None for ``VITACLIP_STORE``.

    Raises:
        InputError: there is no such study, or another program has the port.
    """
    store = open_store(store_uri or Settings().store_uri)
    _ = StudyRecord(store, study).info
    with LiveServer(Watch(store, study), port) as server:
        Terminal().print(f"{study}: {server.url} (Ctrl-C ends it)", soft_wrap=True)
        server.serve_forever()
