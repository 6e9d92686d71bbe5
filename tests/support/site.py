"""Real workers of both lanes over a broker, and a Hermes in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from hermes_async.bootstrap import connect
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from hermes_async.worker.command import APP, worker_command
from tests.support import asking
from tests.support.servers import Process, celery_command, is_alive, wait_until_async

LEASE = 2.0
#: Where the agents are.
MODULES = ("agents", "askers", "families", "spenders")
#: How long after a crash the next attempt may begin: the lease, and what a busy machine adds.
RECOVERY = LEASE + 5.0


class Site:
    """A Redis, workers over it, and a Hermes in this process that dispatches to them."""

    def __init__(self, hermes: Hermes, env: Mapping[str, str], spawn: Callable[..., Process]) -> None:
        self.hermes = hermes
        self.env = env
        self.session = hermes.session("chat")
        self._spawn = spawn

    async def workers(
        self, *lanes: Lane, size: int = 2, env: Mapping[str, str] | None = None
    ) -> list[Process]:
        """Start workers at once and wait until all are ready."""
        started = [self.start(lane, size, env) for lane in lanes]
        for process in started:
            await until_said(process, "ready.")
        return started

    def start(self, lane: Lane, size: int, env: Mapping[str, str] | None = None) -> Process:
        slots = 50 if lane is Lane.ASYNC else size
        return self._spawn(worker_command(lane, concurrency=slots), {**self.env, **(env or {})}, lane)

    def run(self, args: Sequence[str], name: str) -> Process:
        """Run a process in the environment of the workers."""
        return self._spawn(args, self.env, name)

    def celery(self, *args: str, env: Mapping[str, str] | None = None, name: str = "celery") -> Process:
        """Run the plain command line of Celery."""
        return self._spawn(celery_command(APP, *args), {**self.env, **(env or {})}, name)

    async def dispatch(self, agent: Any, *args: Any) -> TaskHandle[Any]:
        return await self.session.dispatch(agent, *args)

    async def running(self, *handles: TaskHandle[Any], attempt: int = 1, timeout: float = 15.0) -> None:
        """Wait until all are running, in this attempt or a later one."""
        await asking.running(*handles, attempt=attempt, timeout=timeout)


@asynccontextmanager
async def site_over(
    state: str,
    folder: Path,
    spawn: Callable[..., Process],
    *,
    broker: str = "",
    config: str = "",
    modules: Sequence[str] = MODULES,
) -> AsyncIterator[Site]:
    """Yield a site that knows the agents of `tests.support`, as its workers do.

    Args:
        state: the Redis, which is the broker, too, unless there is another one.
        folder: for agents.yaml.
        spawn: the fixture.
        broker: its URL, when it is not the Redis of the state.
        config: what agents.yaml says besides its version.
        modules: of `tests.support`, where the agents are.
    """
    file = folder / "agents.yaml"
    file.write_text('version: "2.4"\n' + config)
    env = {
        "HERMES_CONFIG": str(file),
        "HERMES_TASK_QUEUE": broker or state,
        "HERMES_MODULES": ",".join(f"tests.support.{name}" for name in modules),
        "HERMES_LEASE": str(LEASE),
        **({"HERMES_STATE": state} if broker else {}),
    }
    async with connect(Settings.read(environ=env)) as hermes:
        yield Site(hermes, env, spawn)


async def until_said(process: Process, text: str, timeout: float = 30.0) -> None:
    """The same as `Process.wait_for_log`, on an event loop."""
    await wait_until_async(lambda: text in process.log or not process.alive, timeout)
    assert text in process.log, process.log


async def gone(process: Process, timeout: float = 20.0) -> int:
    """The exit code of a process that ends by itself and leaves nothing behind."""
    family = psutil.Process(process.pid).children(recursive=True) if process.alive else []
    await wait_until_async(lambda: not process.alive, timeout)
    await wait_until_async(lambda: not [child for child in family if is_alive(child)])
    return process.wait()
