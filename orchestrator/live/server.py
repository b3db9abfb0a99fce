"""Hands a study's page to browsers of this machine.

The standard library's server is enough: it listens on the loopback address only, knows six paths,
only reads, and answers from memory. A page of another site cannot read it either: a name that was
made to point here (DNS rebinding) is refused by its ``Host``, and no script runs but those below.
"""

from __future__ import annotations

import errno
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from orchestrator.live.watch import Answer, Watch
from orchestrator.reporting.html import STYLE
from vitaclip.errors import InputError

ADDRESS = "127.0.0.1"
# any port: a tunnel may begin at another one
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?", re.IGNORECASE)
_HEADERS = {
    # Older plots of Optuna build functions at run time, hence unsafe-eval; widths stand in styles.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TRIAL = re.compile(r"/trials/([0-9]{1,6})")


class LiveServer(ThreadingHTTPServer):
    """Serves one study's page on the loopback address.

    Args:
        watch: what it shows.
        port: 0 takes any that is free.

    Raises:
        InputError: another program listens on the port.
    """

    daemon_threads = True

    def __init__(self, watch: Watch, port: int) -> None:
        self.watch = watch
        folder = files("orchestrator.live")
        self.pages = {
            "/": ("text/html", Answer.of_bytes((folder / "page.html").read_bytes())),
            "/live.js": ("text/javascript", Answer.of_bytes((folder / "live.js").read_bytes())),
            "/plotly.js": ("text/javascript", Answer.of_bytes(get_plotlyjs().encode())),
            "/page.css": ("text/css", Answer.of_bytes(STYLE.encode())),
        }
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise InputError(
                f"--port {port}: {error.strerror}; name another port, or 0 for any that is free"
            ) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that is closed in the middle of an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where a browser of this machine finds it."""
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vitaclip", ""
    timeout = 60  # a connection on which nothing is asked is closed

    def do_GET(self) -> None:
        if not _HOST.fullmatch(self.headers.get("Host", "")):
            self.send_error(403, "This address is served to browsers of this machine only")
            return
        path = self.path.partition("?")[0]
        if path in self.server.pages:
            self._send(*self.server.pages[path])
        elif path == "/study":
            self._send("application/json", self.server.watch.study())
        elif match := _TRIAL.fullmatch(path):
            self._send("application/json", self.server.watch.trial(int(match[1])))
        else:
            self.send_error(404)

    def _send(self, kind: str, answer: Answer) -> None:
        is_known = self.headers.get("If-None-Match") == answer.tag
        self.send_response(304 if is_known else 200)
        self.send_header("ETag", answer.tag)
        if (age_s := self.server.watch.age_s) is not None:
            self.send_header("X-Age-Seconds", f"{age_s:.0f}")
        if not is_known:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if not is_known:
            self.wfile.write(answer.body)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments: Any) -> None:
        """The terminal stays empty: a page asks every second."""
