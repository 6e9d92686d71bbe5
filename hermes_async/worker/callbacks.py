"""The callbacks worker: a process that makes the calls of the ledger, the same whatever the broker is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import Final

from hermes_async.adapters.plugins import load_callbacks
from hermes_async.adapters.webhook import WebhookSender
from hermes_async.bootstrap import Servers, registry, servers
from hermes_async.core.callbacks import PLACES, TIMEOUT, Caller, Sender
from hermes_async.core.calling import Function, Functions
from hermes_async.core.hermes import Hermes
from hermes_async.core.ledger import Ledger
from hermes_async.core.registry import Registry
from hermes_async.domain.errors import ServiceError
from hermes_async.domain.failure import ErrorInfo
from hermes_async.settings import Settings
from hermes_async.worker.station import Station, open_patiently

logger = logging.getLogger("hermes.callbacks")

#: Seconds for calls to end when the worker is told to stop, unless it is told more.
GRACE: Final = 8.0
#: Seconds beyond its time after which a call is given up for a loop that does not do so itself.
LATE: Final = 3.0
#: Seconds between two looks at what hangs.
LOOK_EVERY: Final = 1.0
#: The exit code of a worker that too much hangs in (EX_SOFTWARE); whoever started it starts it again.
HANGS: Final = 70


def run(
    settings: Settings,
    *,
    places: int = PLACES,
    on_ready: Callable[[int], object] = lambda count: None,
) -> int:
    """Make calls until SIGTERM or SIGINT; a second signal kills. Returns the exit code.

    Args:
        settings: which project.
        places: how many functions are called at once, and as many webhooks.
        on_ready: is called with the number of functions, once they are loaded and Redis answers.

    Raises:
        ConfigError: a callback cannot be loaded.
    """
    known = registry(settings)
    functions = load_callbacks(settings.callback_names, known.callbacks())
    with servers(settings) as where:
        station = Station(known, where)

        def worker(hermes: Hermes) -> CallbacksWorker:
            webhooks = WebhookSender(
                known, hermes.store.ledger, allow=settings.webhook_allow, tracing=hermes.tracing
            )
            return CallbacksWorker(
                hermes,
                functions,
                webhooks,
                lease=settings.lease,
                places=places,
                timeout=settings.callback_timeout,
                grace=settings.grace or GRACE,
            )

        serving = _serve(known, where, station, worker, partial(on_ready, len(functions)))
        try:
            # Not asyncio.run, which waits at its end for coroutines and threads that nobody can stop.
            return asyncio.new_event_loop().run_until_complete(serving)
        finally:
            with suppress(TimeoutError):
                station.close()


async def _serve(
    known: Registry,
    where: Servers,
    station: Station,
    make: Callable[[Hermes], CallbacksWorker],
    on_ready: Callable[[], object],
) -> int:
    hermes = await open_patiently(known, where)
    try:
        worker = make(hermes)
        keeping = station.start(_keep, station, worker.keeper)
        with _signals(worker.stop):
            on_ready()
            try:
                return await worker.run()
            finally:
                keeping.cancel()
    finally:
        await hermes.close()


async def _keep(station: Station, keeper: Callable[[Ledger], Keeper]) -> None:
    hermes = await station.opened()
    keeping = keeper(hermes.store.ledger)
    await asyncio.gather(
        station.forever(keeping.renew, keeping.lease / 3), station.forever(keeping.look, LOOK_EVERY)
    )


class CallbacksWorker:
    """Calls functions until it is stopped, or until too much hangs in it.

    Args:
        hermes: on whose loop it calls.
        functions: by name.
        webhooks: posts to webhooks.
        lease: seconds of a claim.
        places: calls at once, and as many posts.
        timeout: seconds of a call.
        grace: seconds for calls to end when it is told to stop.
    """

    def __init__(
        self,
        hermes: Hermes,
        functions: Mapping[str, Function],
        webhooks: Sender | None = None,
        *,
        lease: float,
        places: int = PLACES,
        timeout: float = TIMEOUT,
        grace: float = GRACE,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
        self._ledger, self._lease, self._places = hermes.store.ledger, lease, places
        self._functions = Functions(functions, self._ledger, hermes.session)
        self._caller = Caller(
            self._ledger,
            self._functions,
            webhooks,
            lease=lease,
            places=places,
            timeout=timeout,
            tracing=hermes.tracing,
        )
        self._loop = asyncio.get_running_loop()
        self._code = 0
        self._grace = grace

    def keeper(self, ledger: Ledger) -> Keeper:
        """Return what keeps its claims alive; it runs on another loop, and `ledger` is of that loop."""
        return Keeper(self._caller, ledger, self._loop, name=self.name, lease=self._lease)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when the calls have ended."""
        logger.info("told to stop: calls have %g s to end, and a second signal kills", self._grace)
        self._caller.stop()

    async def run(self) -> int:
        """Make calls; return the exit code."""
        watching = asyncio.create_task(self._watch(), name="hermes-callbacks-strays")
        try:
            await self._caller.run(self._grace)
        finally:
            watching.cancel()
        with suppress(ServiceError):
            await self._ledger.enlist(self.name, 0.0)
        return self._code

    async def _watch(self) -> None:
        """End the process when as many calls hang in it as it may make at once."""
        while not self._code:
            await asyncio.sleep(LOOK_EVERY)
            strays = len(self._functions.strays) + len(self._caller.strays)
            if strays >= self._places:
                logger.error("%d calls hang here, which nothing can stop: this process is replaced", strays)
                self._code = HANGS
        self.stop()


class Keeper:
    """Keeps the claims of the calls under way alive, from a loop that no callback can block.

    Args:
        caller: makes the calls, on another loop.
        ledger: that of this loop.
        loop: the caller's.
        name: of the process that makes the calls.
        lease: seconds.
    """

    def __init__(
        self,
        caller: Caller,
        ledger: Ledger,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str,
        lease: float,
    ) -> None:
        self.lease = lease
        self._caller, self._ledger, self._loop, self._name = caller, ledger, loop, name
        self._answered = threading.Event()
        self._answered.set()
        #: Looks in a row at which the caller's loop had not moved.
        self._silent = 0

    async def renew(self) -> None:
        """Keep alive what may still be under way; give up what is not, and tell what was lost."""
        await self._ledger.enlist(self._name, self.lease)
        calls = [each for each in self._caller.under_way() if not each.is_lost]
        late = [each for each in calls if each.takes_longer_than(self._caller.timeout + LATE)]
        for each in late:
            error = ErrorInfo(type="TimeoutError", message="the call blocks its process")
            await Caller.write(self._ledger, each.call, each.sender.failed(each.call, error))
        ours = [each for each in calls if each not in late]
        held = set(await self._ledger.renew([each.call for each in ours], self.lease)) if ours else set()
        if lost := [each for each in calls if each in late or each.call.id not in held]:
            self._loop.call_soon_threadsafe(self._caller.lose, lost)

    async def look(self) -> None:
        """End the process when its loop has been blocked for longer than a call may take."""
        if self._answered.is_set():
            self._silent = 0
            self._answered.clear()
            self._loop.call_soon_threadsafe(self._answered.set)
            return
        self._silent += 1  # looks, not seconds: while the whole process was stopped, nothing was silent
        if self._silent * LOOK_EVERY > self._caller.timeout + 2 * LATE:
            _end_blocked()


def _end_blocked() -> None:
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    where = "".join(traceback.format_stack(main)[-4:])
    logger.critical("a callback blocks the loop of this process, which is to be replaced:\n%s", where)
    logging.shutdown()
    os._exit(HANGS)


@contextmanager
def _signals(stop: Callable[[], object]) -> Iterator[None]:
    """Stop at the first signal, kill at the second."""
    loop = asyncio.get_running_loop()
    asked = iter((stop,))

    def obey(number: int) -> None:
        next(asked, partial(os._exit, 128 + number))()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, obey, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
