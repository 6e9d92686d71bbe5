"""The stage: a durable Redis behind our proxy, and real processes that may be killed one by one."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from hermes_async.cli.serve import CALLBACKS, CALLBACKS_READY, RELAY_READY
from hermes_async.domain.agent import NAMESPACE
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from hermes_async.worker.command import worker_command
from tests.acceptance.faults import ledger
from tests.acceptance.faults.ledger import Ledger
from tests.support.proxy import Proxy
from tests.support.servers import Process, RedisServer, free_port, is_alive, wait_until

LEASE = 2.0
#: Seconds within which a process is ready, or a drained stage quiet, however busy the machine is.
PATIENCE = 60.0


class Stage:
    """Everything that a parent talks to. A process is known by its name: `async-1`, `process-1`, `relay`."""

    def __init__(
        self,
        folder: Path,
        *,
        sessions: int = 2,
        seed: int = 0,
        broker: str | None = None,
        slots: int = 50,
    ) -> None:
        """Nothing runs yet.

        Args:
            folder: for the ledger, every log and the server's files.
            sessions: how many chats each parent has.
            seed: for what parents ask.
            broker: its URL, when it is not the Redis of the state.
            slots: of each async worker.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._broker = broker
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.server = RedisServer(folder / "redis", "--appendfsync", "always", aof=True)
        self.proxy = Proxy(self.server.port)
        self.processes: dict[str, Process] = {}
        self.sessions = sessions
        self._seed = seed
        self._slots = slots
        self._numbers = itertools.count(1)
        self._relay_port = free_port()
        self.config = folder / "agents.yaml"
        self.config.write_text('version: "2.4"\n')

    @contextmanager
    def open(self) -> Iterator[Stage]:
        """Run the server and the proxy; at the end nothing that was started is left."""
        self.server.start()
        self.proxy.start()
        self.ledger.write("opened", wall=time.time())
        try:
            yield self
        finally:
            for process in self.processes.values():
                process.kill()
            self.proxy.stop()
            self.server.kill()
            self.ledger.close()

    @property
    def env(self) -> Mapping[str, str]:
        """What every process of the stage is told."""
        return {
            "HERMES_CONFIG": str(self.config),
            "HERMES_TASK_QUEUE": self._broker or self.proxy.url,
            "HERMES_STATE": self.proxy.url,
            "HERMES_MODULES": "tests.acceptance.faults.agents",
            "HERMES_CALLBACK_MODULES": "tests.acceptance.faults.handlers",
            "HERMES_LEASE": str(LEASE),
            "HERMES_STATE_DIR": str(self.folder / "state"),
            "HERMES_NAMESPACE": NAMESPACE,
            "HERMES_RELAY__PORT": str(self._relay_port),
            ledger.VARIABLE: str(self.ledger.path),
        }

    @property
    def settings(self) -> Settings:
        """The same for a parent in this process."""
        return Settings.read(environ=self.env)

    def admin(self) -> redis.Redis:
        """A client of the server that no fault reaches; close it, or use it in a `with`."""
        return self.server.client()

    # -- processes -------------------------------------------------------------------------------------
    def start(self, *names: str, env: Mapping[str, str] | None = None) -> None:
        """Start processes at once, and wait until all are ready."""
        for name in names:
            log = self.folder / f"{name}.{next(self._numbers)}.log"
            self.processes[name] = Process(self._command(name), log, {**self.env, **(env or {})})
        for name in names:
            self.processes[name].wait_for_log(self._ready(name), PATIENCE)

    def kill(self, name: str) -> None:
        """kill -9 of the process itself; what it has started must end without our help."""
        process = self.processes.pop(name)
        family = self.family(process)
        process.signal(signal.SIGKILL)
        process.wait()
        self.ledger.write("killed", name=name, pids=[each.pid for each in family])
        wait_until(lambda: not any(map(is_alive, family)), PATIENCE)

    def kill_child(self, name: str, index: int) -> None:
        """kill -9 of one pool process."""
        main, *children = self.family(self.processes[name])
        victim = children[index % len(children)] if children else main
        with suppress(psutil.NoSuchProcess):
            victim.kill()
        self.ledger.write("killed", name=name, pids=[victim.pid])

    def stop(self, *names: str) -> list[str]:
        """Stop them as an operator does, and return those of which something is left when patience ends."""
        families = {name: self.family(self.processes[name]) for name in names}
        for name in names:
            self.processes[name].signal(signal.SIGTERM)
        with suppress(AssertionError):
            wait_until(
                lambda: not any(is_alive(each) for family in families.values() for each in family), 30.0
            )
        stubborn = [name for name, family in families.items() if any(map(is_alive, family))]
        for name in names:
            self.processes.pop(name).kill()
        return stubborn

    def pids(self, name: str) -> set[int]:
        """The process and everything that it has started, by number."""
        return {each.pid for each in self.family(self.processes[name])}

    def named(self, kind: str) -> list[str]:
        """The running processes of a kind, such as `async`."""
        return sorted(name for name in self.processes if name.startswith(kind))

    def have(self, *names: str) -> None:
        """Let these run and no others."""
        self.revive()
        stubborn = self.stop(*(name for name in list(self.processes) if name not in names))
        assert not stubborn, stubborn
        self.start(*(name for name in names if name not in self.processes))

    def revive(self) -> None:
        """Start again what has died, as a supervisor does."""
        dead = [name for name, process in self.processes.items() if not process.alive]
        for name in dead:
            self.ledger.write("killed", name=name, pids=[self.processes[name].pid])
        self.start(*dead)

    @staticmethod
    def family(process: Process) -> list[psutil.Process]:
        """The process and everything that it has started."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(process.pid)
            return [main, *main.children(recursive=True)]
        return []

    def _command(self, name: str) -> list[str]:
        kind, _, number = name.partition("-")
        if kind == "relay":
            return [sys.executable, "-m", "hermes_async.cli", "relay"]
        if kind == CALLBACKS:
            return [sys.executable, "-m", "hermes_async.cli", "worker", "--lane", CALLBACKS]
        if kind == "drain":
            return [sys.executable, "-m", "tests.acceptance.faults.drain", f"wave-{number}"]
        if kind == "parent":
            mine = [f"chat-{number}-{each}" for each in range(self.sessions)]
            return [sys.executable, "-m", "tests.acceptance.faults.parents", str(self._seed), *mine]
        return worker_command(Lane(kind), concurrency=self._slots if kind == Lane.ASYNC else 2)

    @staticmethod
    def _ready(name: str) -> str:
        said = {
            "relay": RELAY_READY,
            "parent": "parent of ",
            "drain": "draining ",
            CALLBACKS: CALLBACKS_READY,
        }
        return said.get(name.partition("-")[0], "ready.")

    # -- what is left ----------------------------------------------------------------------------------
    def memory(self) -> dict[str, int]:
        """Resident bytes of each process."""
        return {
            name: sum(_rss(each) for each in self.family(process)) for name, process in self.processes.items()
        }

    def sockets(self) -> list[dict[str, Any]]:
        """Everybody who is connected to the server, but for whoever asks."""
        with self.admin() as client:
            me = client.client_id()
            return [each for each in client.client_list() if int(each["id"]) != me]


def beginnings(stage: Stage, task_id: str) -> list[int]:
    """The attempts whose body has begun, in order."""
    return [line.attempt for line in stage.ledger.read() if line.what == "began" and line.task == task_id]


def _rss(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0
