"""Making the calls that the ledger holds: many lines at once, each within its time, each settled once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import anyio

from hermes_async.core.hint import Hint
from hermes_async.core.journal import patiently
from hermes_async.core.ledger import Ledger
from hermes_async.core.outage import Outage
from hermes_async.core.present import Presence
from hermes_async.core.runner import raised
from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.callback import CALLER_LOST, Call
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable
from hermes_async.domain.events import MessageData
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import TaskResult

logger = logging.getLogger("hermes.callbacks")

#: Seconds that a call may take, unless a setting says otherwise.
TIMEOUT: Final = 30.0
#: Calls of a kind, functions or webhooks, that one process makes at once.
PLACES: Final = 32
#: Seconds after which the ledger is looked at without a nudge, which may be lost; and before it is again.
LOOK_EVERY, LOOK_AGAIN = 2.0, 0.02
#: When so often the process was lost that called a function, it is called where nothing else is.
SUSPECT: Final = 2
#: Seconds between two tries to reach a store that is away.
AGAIN: Final = 0.5
#: Seconds for a coroutine to clean up once its call is given up.
CLEANUP: Final = 1.0


@dataclass(frozen=True)
class Succeeded:
    """Whoever was called has taken it; what a function said in the session is posted with that."""

    messages: Sequence[MessageData] = ()


@dataclass(frozen=True)
class Failed:
    """A try that counts: it is made again after `delay` seconds."""

    error: ErrorInfo
    delay: float


@dataclass(frozen=True)
class PutOff:
    """There was no try, and none counts: come again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class Dead:
    """No further try can help."""

    error: ErrorInfo


Outcome = Succeeded | Failed | PutOff | Dead


class Sender(Protocol):
    """Calls a function, or posts to a webhook. What became of it is the return value."""

    async def send(self, call: Call, result: TaskResult) -> Outcome:
        """Make one try; it is cancelled when it takes too long, or when the claim is lost."""
        ...

    def failed(self, call: Call, error: ErrorInfo) -> Outcome:
        """Return what follows from a try that was given up, or has raised: another one, or none."""
        ...


@dataclass(eq=False)
class Underway:
    """A call that this process makes."""

    call: Call
    sender: Sender
    #: By the monotonic clock, when it was made.
    began: float = 0.0
    #: It is made while nothing else is.
    is_alone: bool = False
    #: The claim is somebody else's by now.
    is_lost: bool = False
    sending: asyncio.Task[Outcome] | None = None

    def takes_longer_than(self, seconds: float) -> bool:
        """Tell whether it goes on; one that has to wait for others, or only for Redis, does not."""
        goes_on = self.sending is not None and not self.sending.done()
        return goes_on and time.monotonic() - self.began > seconds


@dataclass(eq=False)
class _Share:
    """The calls of one kind: neither kind takes the other's places."""

    sender: Sender
    webhooks: bool
    places: int
    busy: int = 0


class Caller:
    """Claims what is due, makes the calls, and settles them.

    Args:
        ledger: the rows.
        functions: makes the calls of functions.
        webhooks: posts to webhooks; None: this process leaves them to others.
        lease: seconds of a claim. Somebody must `renew` it for as long as a call is `under_way`.
        places: how many functions are called at once, and as many webhooks.
        timeout: seconds of a call.
        tracing: hears of each call.
    """

    def __init__(
        self,
        ledger: Ledger,
        functions: Sender,
        webhooks: Sender | None = None,
        *,
        lease: float,
        places: int = PLACES,
        timeout: float = TIMEOUT,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self.timeout = timeout
        self._tracing = tracing
        #: Coroutines that go on although their call was given up.
        self.strays: set[asyncio.Task[Outcome]] = set()
        self._ledger = ledger
        self._lease = lease
        self._shares = [_Share(functions, False, places)]
        if webhooks is not None:
            self._shares.append(_Share(webhooks, True, places))
        self._underway: dict[Underway, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        self._is_stopping = False

    def under_way(self) -> list[Underway]:
        """Return the calls that are being made; callable on any thread."""
        return list(self._underway)

    def lose(self, lost: Collection[Underway]) -> None:
        """Stop calls that are not ours any more, unless they have ended."""
        for each in lost:
            if each in self._underway and each.sending is not None and not each.sending.done():
                logger.warning("callback %s is not ours any more: its claim ran out", each.call.id)
                each.is_lost = True
                each.sending.cancel()

    async def run(self, grace: float = 0.0) -> None:
        """Make calls until `stop`; then give back those that do not end within `grace` seconds."""
        outage = Outage(logger, "callbacks")
        while not self._is_stopping:
            try:
                async with self._ledger.watch() as hint:
                    outage.ended()
                    await self._serve(hint)
            except Exception as exc:  # a row that cannot be read, too, must not stop the others for ever
                outage.began(exc)
                await asyncio.sleep(AGAIN)
        await self._drain(grace)

    def stop(self) -> None:
        """Claim nothing more."""
        self._is_stopping = True
        self._moved.set()

    async def _serve(self, hint: Hint) -> None:
        listening = asyncio.create_task(self._listen(hint), name="hermes-callbacks-hint")
        await asyncio.sleep(0)  # it listens before we look
        try:
            while not self._is_stopping:
                self._moved.clear()
                free = self._free()
                if not any([await self._take(share) for share in free]):
                    await self._rest(free)
        finally:
            listening.cancel()

    def _free(self) -> list[_Share]:
        """Return the shares that have a place; none while a call is to be alone."""
        if any(each.is_alone for each in self._underway):
            return []
        return [share for share in self._shares if share.busy < share.places]

    async def _listen(self, hint: Hint) -> None:
        while True:
            await hint.wait(LOOK_EVERY)
            self._moved.set()

    async def _take(self, share: _Share) -> bool:
        if share not in self._free():  # what the other share has just taken is to be alone
            return False
        call = await self._ledger.claim(self._lease, webhooks=share.webhooks)
        if call is not None:
            share.busy += 1
            each = Underway(call, share.sender, is_alone=not share.webhooks and _is_suspect(call))
            making = asyncio.create_task(self._make(each, share), name=f"hermes-callback {call.id}")
            self._underway[each] = making
        return call is not None

    async def _rest(self, free: list[_Share]) -> None:
        """Wait until something may be due, or a place is free."""
        dues = [await self._ledger.due_in(webhooks=share.webhooks) for share in free]
        due = min((due for due in dues if due is not None), default=LOOK_EVERY)
        with anyio.move_on_after(max(due, LOOK_AGAIN)):
            await self._moved.wait()

    async def _make(self, each: Underway, share: _Share) -> None:
        try:
            if each.is_alone:
                await self._others_end(each)
            outcome = await self._outcome(each)
            if not each.is_lost:
                await self._settle(each.call, outcome)
        except Exception:  # its claim runs out
            logger.exception("callback %s cannot be settled", each.call.id)
        finally:
            del self._underway[each]
            share.busy -= 1
            self._moved.set()

    async def _others_end(self, each: Underway) -> None:
        while others := [making for other, making in self._underway.items() if other is not each]:
            await asyncio.wait(others)

    async def _outcome(self, each: Underway) -> Outcome:
        each.began = time.monotonic()
        sending = each.sending = asyncio.create_task(_sent(each.sender, each.call, self._tracing))
        await asyncio.wait({sending}, timeout=self.timeout)
        if sending.done():
            return sending.result()
        sending.cancel()
        await asyncio.wait({sending}, timeout=CLEANUP)
        if not sending.done():
            self.strays.add(sending)
            sending.add_done_callback(self.strays.discard)
        error = ErrorInfo(type="TimeoutError", message=f"the call did not end within {self.timeout:g} s")
        return each.sender.failed(each.call, error)

    async def _settle(self, call: Call, outcome: Outcome) -> None:
        write = partial(self.write, self._ledger, call, outcome)
        if not await patiently(write, f"callback {call.id}"):
            logger.warning("callback %s had been given to another process meanwhile", call.id)
        elif isinstance(outcome, Failed | Dead):
            what = "fails" if isinstance(outcome, Failed) else "is dead"
            error = outcome.error
            logger.warning("callback %s %s: %s: %s", call.id, what, error.type, error.message)

    @staticmethod
    def write(ledger: Ledger, call: Call, outcome: Outcome) -> Awaitable[bool]:
        """Write what became of a call; False: it was not ours any more."""
        match outcome:
            case Succeeded(messages):
                return ledger.succeed(call, messages)
            case Failed(error, delay):
                return ledger.fail(call, error, delay)
            case PutOff(delay):
                return ledger.put_off(call, delay)
            case Dead(error):
                return ledger.give_up(call, error)

    async def _drain(self, grace: float) -> None:
        """Let calls end, and give back the claims of those that do not: nobody has to wait for them."""
        if self._underway:
            await asyncio.wait(self._underway.values(), timeout=grace)
        left = dict(self._underway)
        for each, making in left.items():
            making.cancel()
            if each.sending is not None:
                each.sending.cancel()
        if left:
            await asyncio.wait(left.values(), timeout=CLEANUP)
        with suppress(StoreUnavailable):
            for each in left:
                with suppress(StoreDamaged):
                    await self._ledger.put_off(each.call, 0.0)


def _is_suspect(call: Call) -> bool:
    """Tell whether a function may be what ends processes: the others there would count that as theirs."""
    return sum(each.error == CALLER_LOST for each in call.callback.log) >= SUSPECT


async def _sent(sender: Sender, call: Call, tracing: Tracing) -> Outcome:
    """Make a try; whatever comes out of it, SystemExit too, ends here."""
    with Presence(call.task), tracing.calling(call) as told:
        try:
            outcome = await sender.send(call, TaskResult.of(call.task))
        except BaseException as error:
            outcome = sender.failed(call, raised(error).error)
        told(getattr(outcome, "error", None))
        return outcome
