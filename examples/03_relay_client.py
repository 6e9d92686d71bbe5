"""Follow a session over Socket.IO, lose the connection, and resume. Run `hermes-async up` in the repository,
then: python examples/03_relay_client.py"""

from __future__ import annotations

import asyncio

from hermes_async import AnyEvent, Gap, connect
from hermes_async.bootstrap import read_settings
from hermes_async.relay.auth import mint
from hermes_async.relay.client import RelayClient
from hermes_async.relay.secret import relay_secret
from hermes_async.settings import Settings


async def heard(settings: Settings, session_id: str, after: int, until: str) -> list[AnyEvent]:
    """Return a session's events beyond `after`, up to the first of the type `until`."""
    # What a server of yours does for its clients: only it knows the secret.
    token = mint(relay_secret(settings), sub="example", sessions=[session_id], ttl=60)
    events: list[AnyEvent] = []
    async with RelayClient(settings.relay_url, token) as client:
        async for event in client.follow(session=session_id, after=after):
            if isinstance(event, Gap):
                raise SystemExit(f"events {event.first} to {event.last} are gone")
            events.append(event)
            if event.type == until:
                break
    return events


async def main() -> None:
    """Listen to a task in two pieces that fit together."""
    settings = read_settings()
    async with connect(settings) as hermes:
        session = hermes.session(parent="parent_agent")
        await session.dispatch("wait", seconds=1.5)
        first = await heard(settings, session.id, 0, "task.started")
        await asyncio.sleep(0.5)  # nobody listens; nothing is lost
        rest = await heard(settings, session.id, first[-1].seq, "task.completed")
    print("before:", *(event.type for event in first))
    print("after:", *sorted({event.type for event in rest}))
    dense = [event.seq for event in [*first, *rest]] == list(range(1, len(first) + len(rest) + 1))
    print("every number once and in order:", dense)


if __name__ == "__main__":
    asyncio.run(main())
