"""Pages opened in a headless Chromium, with all that they complain of and ask for (DevTools
protocol).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
_INSIDE = ("file:", "data:", "blob:", "about:")


@dataclass
class Visit:
    """What a page did while it was open."""

    errors: list[str] = field(default_factory=list)  # on its console
    requests: list[str] = field(default_factory=list)  # that would leave it
    value: Any = None  # of the expression that was asked for

    def hear(self, message: dict[str, Any]) -> None:
        content = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(content["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if content["type"] in ("error", "assert"):
                self.errors.append(str(content["args"]))
            case "Log.entryAdded" if content["entry"]["level"] == "error":
                self.errors.append(content["entry"]["text"])
            case "Network.requestWillBeSent" if not content["request"]["url"].startswith(_INSIDE):
                self.requests.append(content["request"]["url"])


def visit(page: Path, expression: str, settle_s: float = 1.0, *, width: int = 1200) -> Visit:
    """Opens a file, waits until it has loaded and ``settle_s`` longer, and evaluates a JavaScript
    expression.
    """
    with open_tab() as tab:
        tab.resize(width, 800)
        tab.go(page.as_uri())
        time.sleep(settle_s)
        tab.seen.value = tab.evaluate(expression)
    return tab.seen


def photograph(
    url: str,
    picture: Path,
    settle_s: float = 15.0,
    size: tuple[int, int] = (1600, 1000),
    *,
    dark: bool = False,
) -> None:
    """Writes a PNG of a page in a window of ``size`` pixels, some time after it has loaded."""
    with open_tab("--hide-scrollbars") as tab:
        tab.resize(*size, dark=dark)
        tab.go(url)
        time.sleep(settle_s)
        picture.write_bytes(tab.picture())


class Tab:
    """A browser's one page, from outside: where it goes, what it shows."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.seen = Visit()
        self._runner, self._socket, self._num_calls = runner, socket, 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._num_calls += 1
        message = {"id": self._num_calls, "method": method, "params": parameters}
        self._runner.run(self._socket.send_json(message))
        answer = self._hear("id", message["id"])
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def go(self, url: str) -> None:
        """Opens an address, and waits until it has loaded."""
        self.call("Page.navigate", url=url)
        self._hear("method", "Page.loadEventFired")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size in pixels, and the colors that its user prefers."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **sizes)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of the promise that it makes."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, patience_s: float = 600.0) -> Any:
        """The expression's value, once it is true. It may be no part of the page: ask for a text of
        it, or a number.
        """
        deadline = time.monotonic() + patience_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.text()}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """All that the page shows in words."""
        return str(self.evaluate("document.body.innerText"))

    def picture(self) -> bytes:
        """A PNG of what the window shows."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def _hear(self, key: str, value: Any) -> dict[str, Any]:
        while True:
            message = self._runner.run(self._socket.receive_json(timeout=600))
            self.seen.hear(message)
            if message.get(key) == value:
                found: dict[str, Any] = message
                return found


@contextmanager
def open_tab(*options: str) -> Iterator[Tab]:
    """A Chromium with these options, and its one page, until the end of the block."""
    with browser(*options) as address, asyncio.Runner() as runner:
        session = runner.run(_new_session())
        try:
            yield Tab(runner, runner.run(session.ws_connect(address, max_msg_size=0)))
        finally:
            runner.run(session.close())


async def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


@contextmanager
def browser(*more_options: str) -> Iterator[str]:
    """A Chromium until the end of the block; the address of its one page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            *more_options,
            f"--user-data-dir={profile}",
        ]
        with subprocess.Popen(
            [str(CHROMIUM), *options, "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                yield _address(Path(profile))
            finally:
                os.killpg(process.pid, 9)


def _address(profile: Path) -> str:
    """Of the one open page, once the browser says where it listens."""
    deadline = time.monotonic() + 60
    while not (file := profile / "DevToolsActivePort").is_file() or not file.read_text().strip():
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.05)
    with urllib.request.urlopen(
        f"http://127.0.0.1:{file.read_text().splitlines()[0]}/json/list"
    ) as answer:
        pages = [target for target in json.load(answer) if target["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])
