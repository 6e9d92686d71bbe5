"""A plain Socket.IO server behind python-socketio's own Redis manager: what the relay is compared with."""

from __future__ import annotations

import os
import sys
from typing import Any

import socketio
import uvicorn

#: What the process prints when clients can connect.
READY = "listening"


def app() -> Any:
    """Return the server; who connects joins the room of the session that it names."""
    url = f"{os.environ['BENCH_REDIS']}/3"
    server = socketio.AsyncServer(
        async_mode="asgi",
        transports=["websocket"],
        client_manager=socketio.AsyncRedisManager(url),
        ping_interval=20,
        ping_timeout=15,
    )

    async def connect(sid: str, environ: dict[str, Any], auth: dict[str, str]) -> None:
        await server.enter_room(sid, auth["session"])

    server.on("connect", connect)
    return socketio.ASGIApp(server)


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(READY, flush=True)


if __name__ == "__main__":
    config = uvicorn.Config(
        app(),
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
    _Server(config).run()
