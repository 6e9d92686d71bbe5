"""A TCP proxy before a server: connections through it are cut, or fall silent, when a test says so."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Closing a socket that lingers for no time sends a reset.
RESET = struct.pack("ii", 1, 0)

Pair = tuple[socket.socket, socket.socket]


class Proxy:
    """Forwards to a port of this machine; every connection has two threads."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[Pair] = []
        self._forgotten: set[Pair] = set()
        self._open = threading.Event()
        self._open.set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def freeze(self) -> None:
        """Fall silent: whatever is sent, now and on new connections, is kept, and no connection is closed."""
        self._open.clear()

    def thaw(self) -> None:
        """Forward what was kept, and go on."""
        self._open.set()

    def forget(self) -> None:
        """Go on for new connections only; for the others nothing will ever arrive again."""
        self._forgotten.update(self._pairs)
        self._open.set()

    def reset(self) -> None:
        """Cut every connection, as a router or a crash does."""
        pairs, self._pairs = self._pairs, []
        for end in (end for pair in pairs for end in pair):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            end.close()

    def close(self) -> None:
        """Cut everything and end the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._accepting.join()
        self._listener.close()
        self._open.set()
        self.reset()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                outer = socket.create_connection(("127.0.0.1", self._target))
                pair = inner, outer
                self._pairs.append(pair)
                for ends in (pair, pair[::-1]):
                    threading.Thread(target=self._forward, args=(pair, *ends), daemon=True).start()

    def _forward(self, pair: Pair, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._open.wait()
                if pair in self._forgotten:
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Yield a proxy to a port, and end it."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
