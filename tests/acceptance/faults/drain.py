"""A parent that drains its inbox, does each thing once, and says so in the ledger.

Run as `python -m tests.acceptance.faults.drain SESSION`. What it has done outlives it in the ledger, by the
ids of the deliveries: those come again that it did before a kill and had not acknowledged.
"""

from __future__ import annotations

import asyncio
import sys

from hermes_async import Delivery, Session
from hermes_async.bootstrap import connect
from hermes_async.domain.errors import StoreUnavailable
from hermes_async.settings import Settings
from tests.acceptance.faults.ledger import Ledger

#: Seconds that it thinks about a delivery.
THOUGHT = 0.001


class Drain:
    """One consumer of an inbox."""

    def __init__(self, session: Session, ledger: Ledger) -> None:
        self._session = session
        self._ledger = ledger
        self._done = {line.id for line in ledger.read() if line.what == "processed"}

    async def run(self) -> None:
        """Drain for ever; an acknowledgement that could not be written is no reason to stop."""
        while True:
            try:
                async for batch in self._session.batches(coalesce=0.05, limit=50):
                    for delivery in batch:
                        await self._process(delivery)
                    await batch.ack()
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    async def _process(self, delivery: Delivery) -> None:
        event = delivery.event
        what = "repeated" if delivery.id in self._done else "processed"
        self._ledger.write(what, id=delivery.id, seq=event.seq, task=event.task_id, type=event.type)
        self._done.add(delivery.id)
        await asyncio.sleep(THOUGHT)


async def main(session_id: str) -> None:
    async with connect(Settings.read()) as hermes:
        drain = Drain(hermes.session(session_id), Ledger.of_process())
        print("draining", session_id, flush=True)
        await drain.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
