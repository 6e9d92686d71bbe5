"""The port to the ledger of callbacks: what is due to be told, to whom, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from hermes_async.core.hint import Hint
from hermes_async.domain.callback import Call, Callback
from hermes_async.domain.events import MessageData
from hermes_async.domain.failure import ErrorInfo

#: Seconds for which a dead row is kept at least, and with it the record of its task.
DEAD_RETENTION = 30 * 86_400.0
#: Seconds after which the failures of an endpoint that was not called since are forgotten.
ENDPOINT_MEMORY = 3_600.0


@dataclass(frozen=True)
class Backlog:
    """How much the ledger holds."""

    waiting: int = 0
    dead: int = 0
    #: Seconds since the oldest of those that wait was filed; None: none waits.
    oldest: float | None = None
    #: Processes that make calls.
    callers: int = 0


class Endpoints(Protocol):
    """What all callers together know of the endpoints of webhooks: one that fails is left alone for a while.

    An endpoint is whatever callers agree on, such as the origin of a URL. It is closed to calls for a pause
    when so many of them failed in a row; after the pause one caller tries it, and a failure closes it again.
    A failure that is noted again because the reply was lost counts twice.
    """

    async def endpoint_failed(self, endpoint: str, threshold: int, pause: float) -> float:
        """Note a failure; return for how many seconds the endpoint is closed to calls now, 0 when it is open.

        Args:
            endpoint: which one.
            threshold: failures in a row that close it.
            pause: seconds for which it is closed then.
        """
        ...

    async def endpoint_ok(self, endpoint: str) -> None:
        """Note that a call went through: the endpoint is open, and its failures are forgotten."""
        ...

    async def endpoint_closed_for(self, endpoint: str, threshold: int, probe: float) -> float:
        """Return for how many seconds the endpoint is closed to calls, 0 when it is open to whoever asks.

        Args:
            endpoint: which one.
            threshold: failures in a row that close it.
            probe: seconds for which it stays closed to others when its pause is over and who asks tries it.
        """
        ...


class Ledger(Endpoints, Protocol):
    """The rows of callbacks, in lines. Every method that writes is atomic and may be repeated.

    The pen files a row with the event that makes it due, in the same script. A row of a function stands in
    the line of its session when the parent's `session.lock` is `ordered`, else in the line of its task, in
    the order of `seq`; one of a webhook has a line of its own. Only the first of a line can be claimed, by
    one at a time. A claim lasts for its lease: then the next claim, with a greater fence, gets the same row
    again. A claim that has run out counts as a failed try: what it called may be what ends processes.

    Functions and webhooks are claimed apart, so that neither has to wait for the other's places.

    A row of `on_progress` tells of the newest progress: one that waits is not filed twice, one that is being
    called is filed again, and none is left when the task ends, but for one that is being called; what the
    end makes due comes after that.
    """

    async def claim(self, lease: float, *, webhooks: bool = False) -> Call | None:
        """Take the first of the line that has been ready for longest, for `lease` seconds; None: none is.

        Lines of webhooks with `webhooks`, else only those of functions. When the reply to a claim is lost,
        its row comes again after the lease.
        """
        ...

    async def renew(self, calls: Sequence[Call], lease: float) -> Sequence[str]:
        """Keep claims alive for `lease` seconds from now; return the ids of those that are still ours."""
        ...

    async def succeed(self, call: Call, messages: Sequence[MessageData] = ()) -> bool:
        """Take the row out, log `callback.succeeded`, and post what the callback said in the session.

        Returns False, and does nothing, when the claim is not ours any more.
        """
        ...

    async def fail(self, call: Call, error: ErrorInfo, delay: float) -> bool:
        """Note a failed try and log `callback.failed`; the line goes on with the same row after `delay` s."""
        ...

    async def put_off(self, call: Call, delay: float) -> bool:
        """Give a claim back untried; the line goes on with the same row after `delay` seconds."""
        ...

    async def give_up(self, call: Call, error: ErrorInfo) -> bool:
        """Note the last failed try, log `callback.dead`, keep the row aside; the line goes on without it.

        A row of `on_progress` is not kept: the next progress tells more.
        """
        ...

    async def redeliver(self, callback_id: str) -> bool:
        """Put a dead row back into its line, with no failures; False: there is none, or no more."""
        ...

    async def discard(self, callback_id: str) -> bool:
        """Throw a dead row away; False: there is none, or no more."""
        ...

    async def remember(self, call: Call, key: str, value: JsonValue) -> bool:
        """Keep what an effect of this callback came to, for later tries; False: it is not ours any more."""
        ...

    async def remembered(self, call: Call) -> Mapping[str, JsonValue]:
        """Return what earlier tries of this callback have kept."""
        ...

    async def callbacks(
        self, *, session_id: str | None = None, dead: bool | None = None, limit: int = 50
    ) -> Sequence[Callback]:
        """Return rows that match, oldest first: by when they were filed, or died."""
        ...

    async def backlog(self) -> Backlog:
        """Return how much waits, how much is dead, and how many processes make calls."""
        ...

    async def enlist(self, caller: str, ttl: float) -> None:
        """Say that a process makes calls, for the next `ttl` seconds; 0: it leaves."""
        ...

    async def due_in(self, *, webhooks: bool = False) -> float | None:
        """Return in how many seconds a line can be claimed, be it that its claim runs out; None: none is."""
        ...

    def watch(self) -> AbstractAsyncContextManager[Hint]:
        """Listen for nudges that a line has become ready."""
        ...
