"""Clients of a relay, or of a plain Socket.IO server: many in one process, as light as Python allows."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import aiohttp

from benchmarks.figure import percentile

#: What the process prints when every client listens.
READY = "all listen"
_LARGEST = 64_000_000


@dataclass(frozen=True)
class Audience:
    """What the clients are told.

    Each of them listens to one of the sessions, in turn, and leaves when it has heard `expected` events; the
    last of them closes the process.
    """

    url: str
    clients: int
    sessions: Sequence[str]
    expected: int
    patience: float
    after: int = 0
    token: str | None = None

    def argv(self) -> list[str]:
        """Return the command that runs them."""
        return [sys.executable, "-m", "benchmarks.listeners", json.dumps(asdict(self))]


class Listener:
    """One client. What it costs to read JSON is not what is measured, so it does that at the end."""

    def __init__(self, audience: Audience, session: str) -> None:
        self._audience = audience
        self._session = session
        self._packets: list[tuple[float, str]] = []
        self._count = 0

    async def listen(self, http: aiohttp.ClientSession, ready: asyncio.Semaphore) -> None:
        """Connect, subscribe, and hear what is expected."""
        where = f"{self._audience.url}/socket.io/?EIO=4&transport=websocket"
        async with http.ws_connect(where, max_msg_size=_LARGEST) as ws:
            await self._enter(ws)
            ready.release()
            async for packet in _packets(ws):
                await self._take(ws, packet)
                if self._count >= self._audience.expected:
                    return

    async def _enter(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        await ws.receive_str()
        await ws.send_str("40" + json.dumps({"token": self._audience.token, "session": self._session}))
        await ws.receive_str()
        if self._audience.token:
            wish = {"session": self._session, "after": self._audience.after}
            await ws.send_str("420" + json.dumps(["subscribe", wish]))
            answer = await ws.receive_str()
            assert '"ok":true' in answer, answer

    async def _take(self, ws: aiohttp.ClientWebSocketResponse, packet: str) -> None:
        """Keep a packet with its moment, and acknowledge it; it is read when all is over."""
        self._packets.append((time.monotonic(), packet))
        bracket = packet.index("[", 0, 40)
        if bracket > 2:  # it wants to be acknowledged
            await ws.send_str(f"43{packet[2:bracket]}[]")
        self._count += packet.count('"message":')

    def heard(self) -> list[tuple[int, float]]:
        """Return what was heard: the number of each event, and the seconds that it was under way."""
        found = []
        for moment, packet in self._packets:
            heard = json.loads(packet[packet.index("[") :])[1]
            for event in heard["events"] if self._audience.token else [heard]:
                number, _, said = event["data"]["message"].partition(" ")
                found.append((int(number), moment - float(said.split()[0])))
        return found


async def _packets(ws: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
    """Yield the events of a socket; answer pings."""
    async for message in ws:
        if message.data == "2":
            await ws.send_str("3")
        elif message.data.startswith("42"):
            yield message.data


def told(listeners: Sequence[Listener], expected: int) -> dict[str, float]:
    """Return the figures of all clients: delays in seconds, and how many events were lost or out of order."""
    all_heard = [one.heard() for one in listeners]
    delays = [delay for heard in all_heard for _, delay in heard] or [0.0]
    numbers = [[number for number, _ in heard] for heard in all_heard]
    return {
        "p50": percentile(delays, 50),
        "p99": percentile(delays, 99),
        "longest": max(delays),
        "lost": sum(expected - len(heard) for heard in numbers),
        "astray": sum(heard != list(range(heard[0], heard[0] + len(heard))) for heard in numbers if heard),
    }


async def main(audience: Audience) -> None:
    """Run all clients and print what they heard as JSON."""
    sessions = audience.sessions
    listeners = [Listener(audience, sessions[number % len(sessions)]) for number in range(audience.clients)]
    ready = asyncio.Semaphore(0)
    connector = aiohttp.TCPConnector(limit=0)
    with suppress(TimeoutError):
        async with asyncio.timeout(audience.patience), aiohttp.ClientSession(connector=connector) as http:
            running = [asyncio.create_task(one.listen(http, ready)) for one in listeners]
            for _ in listeners:
                await ready.acquire()
            print(READY, flush=True)
            began = time.monotonic()
            await asyncio.gather(*running)
    wall = time.monotonic() - began
    print(json.dumps({**told(listeners, audience.expected), "wall": wall}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Audience(**json.loads(sys.argv[1]))))
