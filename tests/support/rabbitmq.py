"""A RabbitMQ node of our own, which tests may stop, kill and torment."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import amqp
import pytest

from tests.support.servers import Process, free_port, wait_until

#: Debian's `rabbitmq-server` on PATH insists on the system's own node; the script behind it does not.
PLACES = "/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", *os.environ.get("PATH", "").split(os.pathsep)


class RabbitServer:
    """One node, with its data, its log and its cookie in a folder."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.port = free_port()
        self.folder = folder
        self._settings = settings
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def _env(self) -> dict[str, str]:
        settings = " ".join(f"-rabbit {name} {value}" for name, value in self._settings.items())
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"hermes-test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": settings,
        }

    def start(self) -> RabbitServer:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].")
        self._distribution_port = free_port()
        self._process = Process([_script("rabbitmq-server")], self.folder / "server.log", self._env)
        wait_until(self._answers, 40)
        return self

    def control(self, *args: str) -> str:
        """Run `rabbitmqctl`."""
        command = [_script("rabbitmqctl"), "--quiet", *args]
        env = {**os.environ, **self._env}
        return subprocess.run(command, env=env, check=True, text=True, capture_output=True).stdout

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """As an operator stops it."""
        assert self._process is not None
        self.control("stop")
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.alive, self._process.log
        address = f"127.0.0.1:{self.port}"
        with suppress(OSError, amqp.AMQPError), amqp.Connection(address, connect_timeout=2) as connection:
            return bool(connection.connected)
        return False


def running_rabbitmq(folder: Path, **settings: int) -> Iterator[RabbitServer]:
    """The body of a fixture: without RabbitMQ on this machine the test is skipped, in CI it fails."""
    if not _script("rabbitmq-server"):
        missing("no RabbitMQ is installed here")
    server = RabbitServer(folder, **settings).start()
    try:
        yield server
    finally:
        server.kill()


def missing(what: str) -> None:
    """Skip the test, or fail in CI, which must have everything."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def _script(name: str) -> str:
    return shutil.which(name, path=os.pathsep.join(PLACES)) or ""


def reachable_rabbitmq(port: int = 5672) -> None:
    """Skip the test, or fail in CI, where no RabbitMQ answers on its usual port."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        missing(f"no RabbitMQ on 127.0.0.1:{port}")
