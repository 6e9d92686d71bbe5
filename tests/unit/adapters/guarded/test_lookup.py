"""Names are looked up as aiohttp does it, but for those of the loop that wait."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from aiohttp import ThreadedResolver

from hermes_async.adapters.guarded import Lookup
from hermes_async.adapters.tools.web_fetch import Fetcher
from tests.support.servers import wait_until, wait_until_async

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
async def test_it_finds_what_aiohttp_finds(host: str) -> None:
    usual = await ThreadedResolver().resolve(host, 80, socket.AF_UNSPEC)
    assert await Lookup().resolve(host, 80) == usual


async def test_names_that_never_answer_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    real, answered, asked = socket.getaddrinfo, threading.Event(), list[str]()

    def slow(host: Any, *args: Any, **more: Any) -> Any:
        if str(host).endswith(".example"):
            asked.append(host)
            answered.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    fetcher = Fetcher()
    reading = [asyncio.create_task(fetcher.web_fetch(f"https://a{n}.example/")) for n in range(40)]
    try:
        await wait_until_async(lambda: len(asked) == 40)  # the loop has 32 threads at most
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        assert not any(each.done() for each in reading)
    finally:
        answered.set()
    told = {type(each) for each in await asyncio.gather(*reading, return_exceptions=True)}
    assert len(told) == 1
    wait_until(lambda: not any(each.name == "look-up" for each in threading.enumerate()), 5)
