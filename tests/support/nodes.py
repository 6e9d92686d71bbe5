"""Processes where pytest-celery expects containers, so that its fixtures work without a container engine."""

from __future__ import annotations

import os
import re
import signal as signals
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu import pools
from pytest_celery import (
    CeleryTestBroker,
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryTestWorker,
    RabbitMQContainer,
    RedisContainer,
)

from hermes_async.adapters.celery_queue import transport_url
from hermes_async.domain.task import Lane
from tests.support.servers import PATIENCE, Process, RedisServer


class Node(CeleryTestContainer):  # type: ignore[misc]
    """What pytest-celery asks of a container."""

    def __init__(self, name: str) -> None:
        # Not the constructor of the base: it wants Docker's own object.
        self._name = name
        self._id = uuid4().hex

    @property
    def id(self) -> str:
        return self._id

    @property
    def name(self) -> str:
        return self._name

    @property
    def status(self) -> str:
        return "running"

    def ready(self) -> bool:
        return True

    def logs(self) -> str:
        return ""

    def reload(self) -> None:
        """Nothing is remembered that could be out of date."""


class ProcessNode(Node):
    """A node that is one process, which may be killed and started again.

    Args:
        name: for messages.
        start: starts the process; every run writes to the same log.
    """

    ready_prompt = ""

    def __init__(self, name: str, start: Callable[[], Process]) -> None:
        super().__init__(name)
        self._start = start
        self._runs = [start()]

    @property
    def process(self) -> Process:
        """The latest run."""
        return self._runs[-1]

    @property
    def status(self) -> str:
        return "running" if self.process.alive else "exited"

    def logs(self) -> str:
        return self.process.log

    def ready(self) -> bool:
        self.process.wait_for_log(self.ready_prompt)
        return True

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal to the process alone: what it has started must notice by itself."""
        number = signals.Signals[signal] if isinstance(signal, str) else signal
        self.process.signal(number)
        if number == signals.SIGKILL:
            self.process.wait()

    def restart(self, timeout: float = PATIENCE) -> None:
        if self.process.alive:
            self.process.signal(signals.SIGTERM)
        self.process.wait(timeout)
        self.process.log_file.write_text("")  # or the prompt of the last run would answer for this one
        self._runs.append(self._start())
        self.ready()

    def stop(self) -> None:
        """End every run and everything it has started; each has a process group of its own."""
        for run in self._runs:
            run.kill()
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signals.SIGKILL)


class BrokerNode(Node):
    """A node that a Celery app reaches under a URL, written as in agents.yaml."""

    url: str

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self.url, "host_url": self.url}


class RedisNode(ProcessNode, BrokerNode):
    """A Redis of our own; `+list` behind the scheme of its URL chooses kombu's stock transport."""

    ready_prompt = "Ready to accept connections"

    def __init__(self, server: RedisServer, behind: str = "") -> None:
        scheme, _, rest = server.url.partition("://")
        super().__init__(f"{scheme}{behind}-{server.port}", lambda: server.start().process)
        self.url = f"{scheme}{behind}://{rest}"


class VirtualHostNode(BrokerNode):
    """A virtual host of the RabbitMQ that runs here; the server is not ours to kill."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rpartition("/")[2])
        self.url = url


class Reachable:
    """For brokers of pytest-celery, whose own URL is wrong when the tests are in a container themselves."""

    @property
    def host_url(self: Any) -> str:
        (port_inside,) = type(self).ports()
        host, port = self.get_addr(port_inside)
        return f"{self.prefix()}{host}:{port}/{self.vhost}"


class ContainerOfRedis(Reachable, RedisContainer):  # type: ignore[misc]
    """Redis in a container."""


class ContainerOfRabbitMQ(Reachable, RabbitMQContainer):  # type: ignore[misc]
    """RabbitMQ in a container."""


class WorkerNode(ProcessNode):
    """A worker as the command line starts it, with one slot."""

    ready_prompt = " ready."

    def __init__(self, lane: Lane, env: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-m", "hermes_async.cli", "worker", "--lane", lane, "--concurrency", "1"]
        super().__init__(f"{lane} worker", lambda: Process(command, log, env))

    @property
    def hostname(self) -> str:
        """The name under which remote control knows this run of it."""
        found = re.search(r"(\S+) ready\.", self.logs())
        assert found, self.logs()
        return found[1]


class Worker(CeleryTestWorker):  # type: ignore[misc]
    """A worker whose name is its own choice, not that of a container's image."""

    def hostname(self) -> str:
        return str(self.container.hostname)


class Broker(CeleryTestBroker):  # type: ignore[misc]
    """A broker whose URLs, which are those of agents.yaml, Celery is told in its own words."""

    def config(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        said = super().config(*args, **kwargs)
        return {**said, "host_url": transport_url(said["host_url"])}


class Setup(CeleryTestSetup):  # type: ignore[misc]
    """A setup that leaves no connection open."""

    def teardown(self) -> None:
        pools.reset()
        self.app.close()
