"""RabbitMQ for tests: the one that runs here, virtual hosts in it, and nodes of our own to stop and kill."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import amqp
import pytest

from tests.support.servers import Process, free_port, wait_until

#: The one that runs here; ours only in queues and virtual hosts that we make there.
HOST, PORT = "127.0.0.1", 5672
RABBITMQ = f"amqp://guest:guest@{HOST}:{PORT}//"
#: Debian's `rabbitmq-server` on PATH insists on the system's own node; the script behind it does not.
PLACES = "/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", *os.environ.get("PATH", "").split(os.pathsep)
#: Seconds that a node takes to start or to stop on a busy machine.
PATIENCE = 90.0


# -- the one that runs here ------------------------------------------------------------------------------
def reachable_rabbitmq() -> str:
    """The URL of the one that runs here; without it the test is skipped, in CI as well."""
    try:
        socket.create_connection((HOST, PORT), 0.5).close()
    except OSError:
        pytest.skip(f"no RabbitMQ on {HOST}:{PORT}")
    return RABBITMQ


@contextmanager
def virtual_host() -> Iterator[str]:
    """Make a virtual host there, yield its URL, and delete it with all its queues."""
    url = reachable_rabbitmq()
    if shutil.which("rabbitmqctl") is None or _rabbitmqctl("ping") != 0:
        pytest.skip("no rabbitmqctl here that reaches RabbitMQ")
    name = f"hermes-test-{uuid4().hex}"
    assert _rabbitmqctl("add_vhost", name) == 0
    try:
        assert _rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*") == 0
        yield url.removesuffix("/") + name
    finally:
        _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*args: str) -> int:
    return subprocess.run(["rabbitmqctl", "--quiet", *args], capture_output=True, timeout=30).returncode


# -- nodes of our own ------------------------------------------------------------------------------------
class RabbitServer:
    """One node, with its data, its log and its cookie in a folder."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.port = free_port()
        self.folder = folder
        self._distribution_port = free_port()
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
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": settings,
        }

    def start(self) -> RabbitServer:
        """Start, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].")
        self._process = Process([_script("rabbitmq-server")], self.folder / "server.log", self._env)
        wait_until(self._answers, PATIENCE, every=0.1)
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
        self._process.wait(PATIENCE)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.alive, self._process.log
        address = f"127.0.0.1:{self.port}"
        with suppress(OSError, amqp.AMQPError), amqp.Connection(address, connect_timeout=2) as connection:
            return bool(connection.connected)
        return False


def running_rabbitmq(folder: Path, **settings: int) -> Iterator[RabbitServer]:
    """The body of a fixture; where no node can be started the test is skipped, in CI as well."""
    if not (_script("rabbitmq-server") and _script("rabbitmqctl")):
        pytest.skip("no rabbitmq-server here of which a test could start a node of its own")
    server = RabbitServer(folder, **settings)
    try:
        yield server.start()
    finally:
        server.kill()


def _script(name: str) -> str:
    return shutil.which(name, path=os.pathsep.join(PLACES)) or ""
