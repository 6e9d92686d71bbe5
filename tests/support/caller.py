"""A process that makes the calls of a ledger and commits them: `python -m tests.support.caller URL SEED`."""

from __future__ import annotations

import asyncio
import random
import sys

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.domain.callback import CALLER_LOST
from hermes_async.domain.events import MessageData
from hermes_async.domain.failure import ErrorInfo

#: Seconds.
LEASE = 0.5
AT_ONCE = 5


async def call(store: RedisStore, chance: random.Random) -> None:
    """Take what is due, for ever: most calls succeed, some fail or are put off, all take a moment."""
    while True:
        made = await store.ledger.claim(LEASE)
        if made is None:
            await asyncio.sleep(0.02)
            continue
        if CALLER_LOST in [each.error for each in made.callback.log]:
            print("taken over", made.id)
        await asyncio.sleep(chance.random() * 0.1)
        fate = chance.random()
        if fate < 0.05:
            await store.ledger.fail(made, ErrorInfo(type="Chance"), 0.01)
        elif fate < 0.1:
            await store.ledger.put_off(made, 0.01)
        elif not await store.ledger.succeed(made, [MessageData(text=made.id)]):
            print("refused", made.id)


async def main(url: str, seed: str) -> None:
    store, chance = RedisStore(url), random.Random(seed)
    print("begins")
    await asyncio.gather(*(call(store, chance) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
