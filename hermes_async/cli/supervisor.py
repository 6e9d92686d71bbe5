"""Keeps child processes running until they are told to stop, and then stops them in bounded time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from hermes_async.cli import exits
from hermes_async.cli.leash import how_it_ended, launch, signal_group, signal_one
from hermes_async.cli.output import pipe
from hermes_async.domain.errors import ConfigError, ServiceError


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running."""

    name: str
    argv: Sequence[str]
    #: Tells whether a line of its output says that it is ready.
    is_ready: Callable[[str], bool] = lambda line: True
    env: Mapping[str, str] = field(default_factory=dict)
    #: How it is asked to stop: signals, each with the seconds that it has before the next one; then SIGKILL.
    stop_signals: Sequence[tuple[int, float]] = ((signal.SIGTERM, 5.0),)
    #: What the kernel sends it when the supervisor itself is killed.
    orphan_signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Policy:
    """How patient a supervisor is; seconds."""

    backoff_first: float = 0.2
    backoff_longest: float = 5.0
    #: One that ran this long begins with the first backoff again.
    steady_after: float = 10.0
    #: So many ends in a row of a child that was never ready are a fault that no restart cures.
    give_up_after: int = 4
    #: For the output of an ended child whose own children keep the pipe.
    drain: float = 1.0


#: How the sentence begins with which a child says why it ends.
_SENTENCE = "hermes-async: "


class GaveUp(ServiceError):
    """A child ended again and again before it was ready."""


class Listener(Protocol):
    """Hears what becomes of the children."""

    def line(self, child: str, text: str) -> None:
        """A child has printed a line."""
        ...

    def ready(self, child: str, text: str) -> None:
        """A child has said that it is ready."""
        ...

    def notice(self, child: str, text: str) -> None:
        """Something happened to a child."""
        ...


class Child:
    """One process and its successors."""

    def __init__(self, spec: ChildSpec, listener: Listener, policy: Policy) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.pid: int | None = None
        self._listener = listener
        self._policy = policy
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()
        self._failures = 0
        #: The latest sentence that it has said.
        self._sentence = ""

    async def keep(self) -> None:
        """Run the process, and again whenever it ends, until it is told to stop.

        Raises:
            GaveUp: it has never been ready.
            ConfigError: nor will it be, as it says itself.
        """
        try:
            while not self._stopping.is_set():
                code = await self._run_once()
                if code == exits.USAGE and self._sentence and not self.ready.is_set():
                    raise ConfigError(self._sentence)
                if not self._stopping.is_set():
                    await self._pause(how_it_ended(code))
        finally:
            self._gone.set()

    async def stop(self) -> None:
        """Ask the process to stop, more and more firmly."""
        self._stopping.set()
        for number, patience in self.spec.stop_signals:
            if self._process is not None:
                signal_one(self._process, number)
            if await self._within(patience):
                return
        self._listener.notice(self.spec.name, "did not stop in time: killed")
        self.kill()
        await self._gone.wait()

    def kill(self) -> None:
        """End the process and all that it has started, at once and for good."""
        self._stopping.set()
        self.bounce()

    def bounce(self) -> None:
        """End the process at once; it is started again unless it was told to stop."""
        if self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        """Run one process to its end and return its exit code."""
        began = asyncio.get_running_loop().time()
        async with pipe() as (output, lines):
            code = await self._run(output, lines)
        if asyncio.get_running_loop().time() - began > self._policy.steady_after:
            self._failures = 0
        return code

    async def _run(self, output: int, lines: AsyncIterator[str]) -> int:
        try:
            process = await launch(self.spec.argv, self.spec.env, output, self.spec.orphan_signal)
        finally:
            os.close(output)
        self._process, self.pid = process, process.pid
        if self._stopping.is_set():  # told so while it was being started
            signal_one(process, signal.SIGTERM)
        listening = asyncio.create_task(self._listen(lines))
        try:
            return await process.wait()
        finally:
            await self._bury(process.pid, listening)

    async def _bury(self, pid: int, listening: asyncio.Task[None]) -> None:
        signal_group(pid, signal.SIGKILL)  # what it has left behind, or itself if we are cancelled
        self._process = self.pid = None
        await asyncio.wait({listening}, timeout=self._policy.drain)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, lines: AsyncIterator[str]) -> None:
        fresh = True
        async for text in lines:
            self._listener.line(self.spec.name, text)
            if text.startswith(_SENTENCE):
                self._sentence = text.removeprefix(_SENTENCE)
            if fresh and self.spec.is_ready(text):
                fresh = False
                self.ready.set()
                self._listener.ready(self.spec.name, text)

    async def _pause(self, how: str) -> None:
        self._failures += 1
        if not self.ready.is_set() and self._failures >= self._policy.give_up_after:
            raise GaveUp(f"{self.spec.name} {how} {self._failures} times before it was ready")
        delay = min(self._policy.backoff_longest, self._policy.backoff_first * 2 ** (self._failures - 1))
        self._listener.notice(self.spec.name, f"{how}; starting it again in {delay:g} s")
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()

    async def _within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True


class Supervisor:
    """Starts waves of children in order and stops them in the opposite one."""

    def __init__(
        self, waves: Sequence[Sequence[ChildSpec]], listener: Listener, policy: Policy | None = None
    ) -> None:
        chosen = policy or Policy()
        self._waves = [[Child(spec, listener, chosen) for spec in wave] for wave in waves]
        self._stopping = asyncio.Event()

    @property
    def children(self) -> list[Child]:
        """Every child, in the order of the waves."""
        return [child for wave in self._waves for child in wave]

    async def run(self) -> None:
        """Keep the children until `stop` or a cancellation; when this returns or raises, none is left.

        Raises:
            GaveUp: a child cannot be started.
            ConfigError: a child says that it is configured wrongly.
        """
        keepers = [asyncio.create_task(child.keep(), name=child.spec.name) for child in self.children]
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({stopped, *keepers}, return_when=asyncio.FIRST_COMPLETED)
            for wave in reversed(self._waves):
                await asyncio.gather(*(child.stop() for child in wave))
        finally:
            stopped.cancel()
            for child in self.children:
                child.kill()
            results = await asyncio.gather(*keepers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def ready(self) -> None:
        """Wait until every child was ready once."""
        for child in self.children:
            await child.ready.wait()

    def stop(self) -> None:
        """Let `run` stop everything gracefully."""
        self._stopping.set()

    def kill(self) -> None:
        """Let `run` end at once."""
        self._stopping.set()
        for child in self.children:
            child.kill()

    def bounce(self) -> None:
        """Start every child anew."""
        for child in self.children:
            child.bounce()
