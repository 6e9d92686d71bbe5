"""A real Chromium, spoken to over its DevTools protocol, and the npm package that a page needs."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.servers import ROOT

SOCKET_IO: Final = "socket.io-client@4"
_PATIENCE: Final = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-breakpad",
    # A page that we make up has no address, so that Chromium takes loopback for a stranger's network.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
    "--remote-debugging-port=0",
)


class ScriptFailed(Exception):
    """A promise in the page was rejected."""


def chromium() -> str:
    """The path of a Chromium; without one the test is skipped."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install the Debian package `chromium` to test hermes.js in a real browser")
    return found


def socket_io(folder: Path) -> str:
    """The text of socket.io-client as npm has it; the test is skipped where npm cannot bring it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm: install it to test hermes.js over the real {SOCKET_IO}")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), SOCKET_IO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {SOCKET_IO}: {(done.stderr or done.stdout)[-300:]}")
    return (folder / "node_modules/socket.io-client/dist/socket.io.esm.min.js").read_text()


class Page:
    """A page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._files: dict[str, tuple[str, str]] = {}

    async def listen(self) -> None:
        """Hand out answers, and files, for ever."""
        async for message in self._socket:
            said = message.json()
            if answer := self._answers.pop(said.get("id"), None):
                answer.set_result(said)
            elif said.get("method") == "Fetch.requestPaused":
                await self._give(said["params"])

    async def serve(self, files: dict[str, tuple[str, str]]) -> None:
        """Give the page these files (type and text, by path) as if its server had them."""
        self._files |= files
        await self.ask("Fetch.enable", patterns=[{"urlPattern": f"*://*{path}"} for path in self._files])

    async def _give(self, paused: dict[str, Any]) -> None:
        kind, text = self._files[urlsplit(paused["request"]["url"]).path]
        await self._say(
            "Fetch.fulfillRequest",
            requestId=paused["requestId"],
            responseCode=200,
            responseHeaders=[{"name": "content-type", "value": kind}],
            body=base64.b64encode(text.encode()).decode(),
        )

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        answer = await self._say(method, **params)
        said = await asyncio.wait_for(answer, _PATIENCE)
        assert "error" not in said, said
        return dict(said["result"])

    async def _say(self, method: str, **params: Any) -> asyncio.Future[dict[str, Any]]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return answer

    async def run(self, script: str) -> Any:
        """Run a body of an async function in the page and return its value.

        Raises:
            ScriptFailed: it threw.
        """
        wrapped = f"(async () => {{ {script} }})()"
        done = await self.ask(
            "Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in done:
            raise ScriptFailed(done["exceptionDetails"]["exception"].get("description"))
        return done["result"].get("value")

    async def visit(self, url: str) -> None:
        """Go to a URL, and wait until it is there."""
        done = await self.ask("Page.navigate", url=url)
        assert "errorText" not in done, done
        await self.until("return location.href + document.readyState", f"{url}complete")

    async def until(self, script: str, wanted: Any) -> None:
        """Wait until a script returns this."""
        deadline = time.monotonic() + _PATIENCE
        while (found := await self.run(script)) != wanted:
            assert time.monotonic() < deadline, f"{script} gives {found!r}"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def page_of(binary: str, folder: Path) -> AsyncIterator[Page]:
    """Start a browser with a profile of its own and give its first page; all of it ends with the context."""
    command = [binary, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with (folder.parent / "chromium.log").open("wb") as log:
        browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
    try:
        port = await _port(folder / "DevToolsActivePort", browser)
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as response:
                pages = [one for one in await response.json() if one["type"] == "page"]
            async with http.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                try:
                    yield page
                finally:
                    listening.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()


async def _port(file: Path, browser: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(_PATIENCE):
        while not file.exists() or not file.read_text().strip():
            assert browser.poll() is None, f"the browser has ended: {browser.returncode}"
            await asyncio.sleep(0.02)
    return int(file.read_text().splitlines()[0])
