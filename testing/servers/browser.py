"""A page opened in a headless Chromium, with all that the page complains of and asks for (DevTools
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
    picture: str = ""  # a PNG in base64, if it was asked for

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


def visit(page: Path, expression: str, settle_s: float = 1.0) -> Visit:
    """Opens a file, waits until it has loaded and ``settle_s`` longer, and evaluates a JavaScript
    expression.
    """
    with browser() as address:
        return asyncio.run(_visit(address, page.as_uri(), expression, settle_s))


def photograph(
    url: str, picture: Path, settle_s: float = 15.0, size: tuple[int, int] = (1600, 1000)
) -> None:
    """Writes a PNG of a page in a window of ``size`` pixels, some time after it has loaded."""
    with browser("--hide-scrollbars", f"--window-size={size[0]},{size[1]}") as address:
        found = asyncio.run(_visit(address, url, "document.title", settle_s, picture=True))
    picture.write_bytes(base64.b64decode(found.picture))


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


async def _visit(
    address: str, url: str, expression: str, settle_s: float, *, picture: bool = False
) -> Visit:
    found = Visit()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, max_msg_size=0) as socket,
    ):

        async def call(number: int, method: str, **params: Any) -> dict[str, Any]:
            await socket.send_json({"id": number, "method": method, "params": params})
            return await hear(lambda message: message.get("id") == number)

        async def hear(is_last: Any) -> dict[str, Any]:
            while True:
                message: dict[str, Any] = await socket.receive_json(timeout=60)
                found.hear(message)
                if is_last(message):
                    return message

        for number, domain in enumerate(("Page", "Runtime", "Log", "Network")):
            await call(number, f"{domain}.enable")
        await socket.send_json({"id": 10, "method": "Page.navigate", "params": {"url": url}})
        await hear(lambda message: message.get("method") == "Page.loadEventFired")
        await asyncio.sleep(settle_s)
        answer = await call(11, "Runtime.evaluate", expression=expression, returnByValue=True)
        found.value = answer["result"]["result"].get("value")
        if picture:
            found.picture = (await call(12, "Page.captureScreenshot"))["result"]["data"]
    return found
