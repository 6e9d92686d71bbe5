"""A TCP proxy that can be told to misbehave, and to stop at the very bytes that a test cares about."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any

#: Bytes per read, and the most bytes of a mark that may lie across two reads.
CHUNK, OVERLAP = 65_536, 128
#: Seconds by which `slow` delays every chunk.
DELAY = 0.15
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """How a network may fail."""

    PASS = "pass"
    #: Nothing arrives until it heals; then it does, late, as TCP repeats what was lost.
    DROP = "drop"
    #: Every connection is reset, new ones at once.
    RESET = "reset"
    #: The connections that there are never hear anything again; new ones work.
    HALF_OPEN = "half-open"
    #: Every chunk takes a while.
    SLOW = "slow"


class Trap:
    """Stops the connection on which some bytes pass by, before or after the server has seen them."""

    def __init__(self, mark: bytes, *, answered: bool) -> None:
        self.mark = mark
        #: True: the server gets the bytes, and its reply is held back; False: it never sees them.
        self.answered = answered
        self._sprung = threading.Event()

    @property
    def is_sprung(self) -> bool:
        return self._sprung.is_set()

    def spring(self) -> None:
        """The bytes are passing by."""
        self._sprung.set()


class _Pair:
    """One client's connection and ours to the server on its behalf."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.is_deaf = False  # what arrives on either side is forgotten
        self.holds_requests = False
        self.holds_replies = False
        self.tail = b""

    def reset(self) -> None:
        """Close both sides without a goodbye."""
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class Proxy:
    """Forwards a loopback port to another one, on a thread with a loop of its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._mode = Mode.PASS
        self._traps: list[Trap] = []
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flowing = asyncio.Event()

    @property
    def url(self) -> str:
        """A Redis behind it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Proxy:
        """Begin to listen."""
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        """Close everything."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Misbehave from now on, or no longer."""
        self._call(self._change(mode))

    def cut(self) -> None:
        """Reset every connection, once; new ones work."""
        self._call(self._reset_all())

    @contextmanager
    def trap(self, mark: bytes, *, answered: bool) -> Iterator[Trap]:
        """Stop the next connection on which a client sends these bytes; reset it at the end."""
        trap = Trap(mark, answered=answered)
        self._traps.append(trap)
        try:
            yield trap
        finally:
            with suppress(ValueError):
                self._traps.remove(trap)
            self._call(self._reset_held())

    # -- on the loop -----------------------------------------------------------------------------------
    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        await self._change(Mode.RESET)  # whoever is just being accepted is cut, too
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.RESET:
            await self._reset_all()
        for pair in self._pairs:
            pair.is_deaf = pair.is_deaf or mode is Mode.HALF_OPEN
        if mode is Mode.DROP:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def _reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.reset()

    async def _reset_held(self) -> None:
        for pair in list(self._pairs):
            if pair.holds_requests or pair.holds_replies:
                pair.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        try:
            replies, server = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
            pair = _Pair(writer, server)
            self._pairs.add(pair)
            if self._mode is Mode.RESET:
                pair.reset()
            await _first(self._requests(pair, reader, server), self._replies(pair, replies, writer))
        except OSError:  # the server is down
            pass
        finally:
            for each in pair.writers:
                each.close()
            self._pairs.discard(pair)

    async def _requests(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async for chunk in _chunks(reader):
            await self._delayed()
            self._look(pair, chunk)
            if not (pair.is_deaf or pair.holds_requests):
                writer.write(chunk)
                await writer.drain()

    async def _replies(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for chunk in _chunks(reader):
            await self._delayed()
            if not (pair.is_deaf or pair.holds_replies):
                writer.write(chunk)
                await writer.drain()

    async def _delayed(self) -> None:
        if self._mode is Mode.SLOW:
            await asyncio.sleep(DELAY)
        await self._flowing.wait()

    def _look(self, pair: _Pair, chunk: bytes) -> None:
        """Spring the first trap whose mark has passed by."""
        seen, pair.tail = pair.tail + chunk, chunk[-OVERLAP:]
        for trap in self._traps:
            if trap.mark in seen:
                self._traps.remove(trap)
                pair.holds_replies = trap.answered
                pair.holds_requests = not trap.answered
                trap.spring()
                return


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Yield a proxy to a port, and end it."""
    proxy = Proxy(port).start()
    try:
        yield proxy
    finally:
        proxy.stop()


async def _first(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run both directions until one side has closed."""
    running = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in running:
            pump.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what arrives, until the other side closes."""
    with suppress(OSError):
        while chunk := await reader.read(CHUNK):
            yield chunk
