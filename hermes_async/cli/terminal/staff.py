"""Workers for a chat that finds none: they are started here, and stop with it."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import anyio

from hermes_async.adapters.embedded_redis import EmbeddedRedis
from hermes_async.cli.supervisor import ChildSpec, GaveUp, Supervisor
from hermes_async.cli.up import callbacks_child, worker_children
from hermes_async.cli.words import harmless
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import ConfigError, EmbeddedServerError, StoreDamaged, StoreUnavailable
from hermes_async.settings import Settings

#: Seconds between two looks at whether anybody works.
LOOK_EVERY: Final = 2.0
#: Lines kept of what the children say: shown if they cannot be started.
_HELD: Final = 20
#: Seconds that what runs has to end, and to be handed back then: who leaves a chat does not want to wait.
_GRACE: Final = 0.5
_PATIENCE: Final = 3.0


class Staff:
    """Looks whether anybody works for the session's tasks, and starts who does if it may.

    Args:
        hermes: over the servers of the settings.
        settings: how workers are started.
        may_start: False: it only says that nobody works.
        tell: says something to the person.
        on_status: is told what to show for the time being; an empty text: nothing.
    """

    def __init__(
        self,
        hermes: Hermes,
        settings: Settings,
        *,
        may_start: bool,
        tell: Callable[[str], None],
        on_status: Callable[[str], None],
    ) -> None:
        self._hermes = hermes
        self._settings = settings
        self._may_start = may_start
        self._tell = tell
        self._on_status = on_status
        self._beginning, self._stopping = asyncio.Event(), asyncio.Event()
        self._said: deque[str] = deque(maxlen=_HELD)
        self._supervisor: Supervisor | None = None

    @property
    def works_here(self) -> bool:
        """Whether they are ours, and stop with the chat."""
        return self._supervisor is not None

    def begin(self) -> None:
        """Let `run` go to work: workers take much of a machine while they start, and talk comes first."""
        self._beginning.set()

    def stop(self) -> None:
        """Let the workers hand back what they run, and `run` return."""
        self._stopping.set()
        self._beginning.set()
        if self._supervisor is not None:
            self._supervisor.stop()

    async def run(self) -> None:
        """Wait until nobody works, then start workers, or say how; until it is told to stop."""
        await self._beginning.wait()
        while await self._somebody_works():
            if await self._stopped_within(LOOK_EVERY):
                return
        if self._stopping.is_set():
            return
        if self._may_start:
            await self._work()
            return
        self._tell("nobody works here yet: tasks wait for `hermes-async up`, in another terminal")
        await self._stopping.wait()

    async def _stopped_within(self, patience: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _somebody_works(self) -> bool:
        try:
            # Its janitor says so every second or two; slots are counted for as long as a lease lasts.
            return (await self._hermes.traffic()).leader is not None
        except (StoreUnavailable, StoreDamaged):
            return True  # others tell of it

    async def _work(self) -> None:
        self._on_status("starting workers ...")
        specs = [callbacks_child(self._settings), *worker_children(self._settings, 1, verbose=False)]
        supervisor = self._supervisor = Supervisor([[_hasty(spec) for spec in specs]], self)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._announce, supervisor)
                group.start_soon(self._keep_redis, supervisor)
                await supervisor.run()
                group.cancel_scope.cancel()
        except* (GaveUp, ConfigError) as failed:
            self._on_status("no workers")
            self._tell("\n".join([*self._said, f"the workers cannot be started: {failed.exceptions[0]}"]))

    async def _announce(self, supervisor: Supervisor) -> None:
        await supervisor.ready()
        self._said.clear()
        self._on_status("")

    async def _keep_redis(self, supervisor: Supervisor) -> None:
        """Start the embedded Redis again if it dies."""
        if self._settings.agents.task_queue is not None:
            return
        embedded = await anyio.to_thread.run_sync(EmbeddedRedis.join, self._settings.state_dir / "redis")
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                before = embedded.url
                try:
                    await anyio.to_thread.run_sync(embedded.ensure)
                except EmbeddedServerError as error:
                    self._tell(str(error))
                if embedded.url != before:
                    supervisor.bounce()
        finally:
            embedded.leave()

    def line(self, child: str, text: str) -> None:
        """Keep what a child says, for the case that it cannot be started."""
        if text.strip():
            self._said.append(harmless(f"{child}: {text}"))

    def ready(self, child: str, text: str) -> None:
        """A child is ready."""

    def notice(self, child: str, text: str) -> None:
        """Say what became of a child."""
        if text != "did not stop in time: killed":
            self._tell(f"{child} {text}")


def _hasty(spec: ChildSpec) -> ChildSpec:
    stops = ((signal.SIGTERM, _PATIENCE),)
    return replace(spec, env={**spec.env, "HERMES_GRACE": str(_GRACE)}, stop_signals=stops)
