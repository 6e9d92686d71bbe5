"""Tokens that count no more, although they have not expired: asked of the store, again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from hermes_async.core.ending import end
from hermes_async.core.ports import Store
from hermes_async.domain.errors import StoreDamaged, StoreUnavailable, Unauthorized
from hermes_async.relay.auth import Grant

logger = logging.getLogger("hermes.relay")

#: Seconds from one look at the tokens of those who are connected to the next.
LOOK_EVERY = 2.0


class Revocation:
    """Knows which tokens are revoked.

    Args:
        store: where they are kept.
        present: returns the names of the tokens of all who are connected.
        hang_up: is told of those that are revoked.
    """

    def __init__(
        self,
        store: Store,
        present: Callable[[], Collection[str]],
        hang_up: Callable[[Collection[str]], None],
    ) -> None:
        self._store = store
        self._present = present
        self._hang_up = hang_up
        self._looking = asyncio.create_task(self._look_again(), name="hermes-relay-revocation")

    async def check(self, grant: Grant) -> None:
        """Let nobody in whose token is revoked.

        Raises:
            Unauthorized: it is.
            StoreUnavailable: nobody knows.
        """
        if grant.jti is not None and await self._store.revoked([grant.jti]):
            raise Unauthorized("the token has been revoked; ask for a new one")

    async def close(self) -> None:
        """Look no more."""
        await end(self._looking)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                found = await self._store.revoked(list(self._present()))
            except (StoreUnavailable, StoreDamaged) as exc:  # nothing is sent meanwhile either
                logger.warning("cannot see which tokens are revoked: %s", exc)
            else:
                self._hang_up(found)
