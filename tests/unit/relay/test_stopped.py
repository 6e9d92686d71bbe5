"""Readers that stop reading: a process of clients is stopped by a signal while a session streams."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process

import psutil
import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.relay.line import Limits
from tests.support.servers import ROOT, wait_until_async
from tests.unit.relay.conftest import Station, say, token

pytestmark = pytest.mark.anyio

READERS, EVENTS = 50, 1_000
READER = """
import asyncio, json, sys
from hermes_async.relay.client import RelayClient

async def read(client, last, began):
    seqs = []
    async for event in client.follow(session="s"):
        seqs.append(event.seq)
        began.set()
        if event.seq == last:
            return seqs

async def main(url, token, readers, last):
    async with RelayClient(url, token) as client:
        began = [asyncio.Event() for _ in range(readers)]
        reading = [asyncio.create_task(read(client, last, one)) for one in began]
        for one in began:
            await one.wait()
        print("they read", flush=True)
        print(json.dumps(await asyncio.gather(*reading)), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


async def test_50_stopped_readers_cost_little_are_hung_up_on_and_miss_nothing(hermes: Hermes) -> None:
    async with Station(hermes, Limits(ack_timeout=1.0)) as relay:
        await say(hermes, "s", 1)
        argv = [sys.executable, "-c", READER, relay.url, token("s"), str(READERS), str(EVENTS)]
        process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=PIPE, limit=2**24)
        try:
            await stopped_and_resumed(process, hermes, relay)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def stopped_and_resumed(process: Process, hermes: Hermes, relay: Station) -> None:
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"they read\n"
    process.send_signal(signal.SIGSTOP)
    me = psutil.Process()
    before = me.memory_info().rss
    session = hermes.session("s")
    for _ in range(10):
        await asyncio.gather(*(session.send_message("x" * 5_000) for _ in range(99)))
        await asyncio.sleep(0.05)
    await asyncio.gather(*(session.send_message("y") for _ in range(EVENTS - 991)))
    written = EVENTS * 5_000 * 3  # what the store in memory keeps of it, at most
    assert me.memory_info().rss - before < 50_000_000 + written
    await wait_until_async(lambda: not connected(me, relay), timeout=10)
    process.send_signal(signal.SIGCONT)
    read = json.loads(await asyncio.wait_for(process.stdout.readline(), 45))
    assert read == [list(range(1, EVENTS + 1))] * READERS


def connected(me: psutil.Process, relay: Station) -> list[object]:
    ours = [each for each in me.net_connections("tcp") if each.laddr.port == relay.port]
    return [each for each in ours if each.status != "LISTEN"]
