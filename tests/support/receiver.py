"""A server for webhooks that keeps what it gets and answers as the test says, over plain sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

#: Writes an answer; the connection is closed when it returns.
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Post:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


def status(code: int, **more: str) -> Script:
    """An answer without a body; `retry_after="5"` is a header."""

    async def write(writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items()]
        writer.write(f"HTTP/1.1 {code} Said\r\ncontent-length: 0\r\n{''.join(lines)}\r\n".encode())

    return write


async def hang(writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off, when all has been received."""
    writer.transport.abort()


@dataclass
class Receiver:
    """Answers by its scripts, one after the other, and then always with 204."""

    scripts: deque[Script] = field(default_factory=deque)
    posts: list[Post] = field(default_factory=list)
    connections: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    #: Names that clients asked for in their TLS handshakes.
    names: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen, on the same port as before if it was closed."""
        if self.tls is not None:
            self.tls.sni_callback = lambda _, name, __: self.names.append(name)
        self._talks: set[asyncio.Task[Any]] = set()
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and break off what is being said."""
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await self._server.wait_closed()

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.place}/hook"

    def then(self, *scripts: Script) -> None:
        self.scripts.extend(scripts)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                self.posts.append(await _post(reader))
                await (self.scripts.popleft() if self.scripts else status(204))(writer)
                await writer.drain()
        finally:
            self._talks.discard(talk)
            writer.close()


@asynccontextmanager
async def sinkhole() -> AsyncIterator[Receiver]:
    """Listen on every address of this machine, IPv4 and IPv6, at one port, where nobody may call."""
    while True:
        async with AsyncExitStack() as stack:
            six = await stack.enter_async_context(Receiver(host="::"))
            try:
                four = await stack.enter_async_context(Receiver(host="0.0.0.0", port=six.port))
            except OSError:  # the port is somebody else's in IPv4
                continue
            yield four
            assert (six.connections, four.connections) == (0, 0)
            return


async def _post(reader: asyncio.StreamReader) -> Post:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip()
    line, *rows = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
    return Post(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
