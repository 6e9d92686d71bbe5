"""Who asks, what they may have, and which requests are still being answered."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import anyio
from fastapi import Depends, Request
from starlette.types import Scope

from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import Unauthorized
from hermes_async.relay.access import Access
from hermes_async.relay.auth import Grant, checked_secret, verify
from hermes_async.relay.door import Door
from hermes_async.relay.http.problem import Refused
from hermes_async.relay.line import Limits
from hermes_async.relay.window import Windows

_SCHEME: Final = "bearer "


class Host(Protocol):
    """The relay, as far as it is asked over plain HTTP."""

    def counts(self) -> Mapping[str, float]:
        """Return the figures of the sockets, by name."""
        ...

    def hears(self) -> bool:
        """Tell whether it lets clients in and hears what there is to tell them."""
        ...

    async def check(self, grant: Grant) -> None:
        """Raise Unauthorized for a token that is revoked, and StoreUnavailable when nobody knows."""
        ...


class Desk:
    """Lets requests in by token, and knows those that last.

    Args:
        hermes: whose sessions are served.
        windows: how they are read, together with the sockets.
        secret: what signs the tokens.
        limits: what a client may ask for.
        door: counts the requests that last among the sockets.
        host: the relay.
    """

    def __init__(
        self, hermes: Hermes, windows: Windows, secret: str, limits: Limits, door: Door, host: Host
    ) -> None:
        self.hermes = hermes
        self.windows = windows
        self.limits = limits
        self.host = host
        self.draining = False
        self._door = door
        self._secret = checked_secret(secret)
        self._lasting: dict[anyio.CancelScope, Grant] = {}

    async def admit(self, request: Request) -> Visitor:
        """Return who shows this token.

        Raises:
            Unauthorized: it is missing, expired, revoked, or not one of ours.
            StoreUnavailable: nobody knows whether it is revoked.
        """
        said = request.headers.get("authorization", "")
        if not said.lower().startswith(_SCHEME):
            raise Unauthorized("a token is needed: send it in the header `Authorization: Bearer TOKEN`")
        grant = verify(self._secret, said[len(_SCHEME) :].strip())
        await self.host.check(grant)
        return Visitor(self.hermes, grant, self, request.scope)

    def counts(self) -> dict[str, float]:
        """Return the figures of this relay, by name."""
        return {**self.host.counts(), "requests_lasting": len(self._lasting)}

    def present(self) -> Collection[Grant]:
        """Return the grants of those whose requests last."""
        return self._lasting.values()

    @contextmanager
    def lasts(self, visitor: Visitor, seconds: float) -> Iterator[anyio.CancelScope]:
        """End what is done inside after some seconds, when the token counts no more, or when the relay stops.

        Raises:
            Refused: the relay stops already, or has let in as many as it may.
        """
        if self.draining:
            raise Refused("draining", "this relay stops; ask again")
        if too_many := self._door.refusal(visitor.scope):
            raise Refused("too_many", too_many)
        deadline = anyio.current_time() + min(seconds, visitor.grant.expires_at - time.time())
        with self._door.passed(visitor.scope), anyio.CancelScope(deadline=deadline) as scope:
            self._lasting[scope] = visitor.grant
            try:
                yield scope
            finally:
                del self._lasting[scope]

    def hang_up_on(self, revoked: Collection[str]) -> None:
        """End the requests of tokens that count no more."""
        for scope, grant in self._lasting.items():
            if grant.jti in revoked:
                scope.cancel()

    def drain(self) -> None:
        """End every request that lasts."""
        self.draining = True
        for scope in self._lasting:
            scope.cancel()


@dataclass(frozen=True)
class Visitor(Access):
    """Somebody with a token."""

    desk: Desk
    scope: Scope

    def lasts(self, seconds: float = math.inf) -> AbstractContextManager[anyio.CancelScope]:
        """End what is done inside after some seconds, when the token counts no more, or when the relay stops.

        Raises:
            Refused: the relay stops already, or has let in as many as it may.
        """
        return self.desk.lasts(self, seconds)

    def sessions(self) -> Sequence[str | None]:
        """Return which sessions are theirs; None stands for all."""
        return [None] if self.grant.sessions == "*" else list(self.grant.sessions)


def _reader(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def _writer(request: Request) -> Visitor:
    visitor = _reader(request)
    visitor.to_command()
    return visitor


#: Whoever was let in: see `StrictRoute`.
Reader = Annotated[Visitor, Depends(_reader)]
#: Whoever may change something, too.
Writer = Annotated[Visitor, Depends(_writer)]
