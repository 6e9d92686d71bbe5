"""One batch at a time, past Engine.IO."""

from __future__ import annotations

import asyncio

import pytest

from hermes_async.relay.courier import Courier, Message

pytestmark = pytest.mark.anyio


async def test_a_batch_that_is_given_up_before_it_is_written_blocks_nobody() -> None:
    """Else the socket would be closed, because nobody acknowledges what nobody got."""
    given_back = []

    async def stuck(message: Message) -> None:
        await asyncio.Event().wait()

    courier = Courier(stuck, None)
    carrying = asyncio.create_task(courier.carry("{}", lambda: given_back.append(1)))
    await asyncio.sleep(0)
    carrying.cancel()
    await asyncio.wait({carrying})
    assert given_back == [1]
    assert courier.hears("421[]") is False and courier.hears("431[]") and given_back == [1]
