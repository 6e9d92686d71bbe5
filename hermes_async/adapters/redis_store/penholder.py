"""How every script of the pen is called: with the rules of the project, and what follows on the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from hermes_async.adapters.redis_store.keys import Keys
from hermes_async.adapters.redis_store.pipe import Pipe, Script
from hermes_async.adapters.redis_store.readers import RedisReaders
from hermes_async.core.ports import PUBLISH_GRACE, RESEND_AFTER
from hermes_async.domain.urls import masked


class Penholder(RedisReaders):
    """Calls scripts.

    Args:
        client: makes the connections.
        url: where they lead.
        keys: the names of all keys.
        log_length: events kept per session at least.
        max_running: tasks that may be admitted at once; 0: any number.
    """

    def __init__(self, client: Redis, url: str, keys: Keys, log_length: int, max_running: int) -> None:
        super().__init__(client, url, keys)
        rules = (log_length, max_running, int(RESEND_AFTER * 1000), int(PUBLISH_GRACE * 1000))
        self._pipe = Pipe(client, masked(url), self.home, rules)
        self._publish: Callable[[Sequence[str]], None] = _nobody
        self._revoke: Callable[[Sequence[str]], None] = _nobody

    def on_admitted(self, publish: Callable[[Sequence[str]], None]) -> None:
        self._publish = publish

    def on_cancelled(self, revoke: Callable[[Sequence[str]], None]) -> None:
        self._revoke = revoke

    def _pen(self, script: Script, prefix: str, *args: str | int) -> asyncio.Future[Any]:
        return self._pipe.call(script, prefix, *args)

    async def _admitting(self, script: Script, prefix: str, *args: str | int) -> list[Any]:
        """Call a script that may let tasks in, and have those published that need it; return its answer."""
        answer: list[Any]
        *answer, ready = await self._pen(script, prefix, *args)
        if ready:
            self._publish(ready)
        return answer


def _nobody(task_ids: Sequence[str]) -> None:
    """The janitor of another process publishes them; a worker hears of a cancel with its lease."""
