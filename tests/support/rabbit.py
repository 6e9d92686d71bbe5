"""A RabbitMQ node of our own, which tests may stop, restart and kill."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from tests.support.servers import Process, free_port, wait_until

#: The script that starts a node as whoever calls it.
BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: Seconds that a node takes to start on a busy machine.
PATIENCE = 90.0


class RabbitServer:
    """A node with its own name, ports and folder, beside any other on this machine."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._distribution = free_port()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start, and wait until it greets."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        self._process = Process([str(BINARY)], self.folder / "server.log", self._env())
        wait_until(self._greets, PATIENCE, every=0.1)

    def stop(self) -> None:
        """As an operator stops it."""
        assert self._process is not None
        self._process.signal(15)
        self._process.wait(PATIENCE)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()

    def _env(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"faults{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def _greets(self) -> bool:
        assert self._process is not None
        assert self._process.alive, self._process.log
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as sock:
            sock.settimeout(2.0)
            sock.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(sock.recv(1))
        return False
