"""What a user writes and a strict type checker must accept, with the types that it must see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, assert_type

from hermes_async import AnyEvent, Batch, Delivery, Gap, Session, Subagent, TaskContext, TaskHandle, subagent


@dataclass
class Report:
    topic: str


@subagent
async def research(ctx: TaskContext, topic: str, *, depth: int = 1) -> Report:
    ctx.progress(20, "searching")
    ctx.partial({"so": ["far"]}, name="summary")
    ctx.message("hello", data=[1, None])
    return Report(topic)


@subagent
def count(ctx: TaskContext, text: str) -> int:
    assert_type(ctx.wait(ctx.ask, "Which?", schema=str), str)
    return len(text)


@subagent(timeout=120, retry_limit=2, pool="process")
async def slow(ctx: TaskContext) -> list[str]:
    handle = await ctx.dispatch(research, "chips")
    assert_type(handle, TaskHandle[Report])
    assert_type(await ctx.ask("Which?", schema=Report, timeout=60.0, default=Report("x")), Report)
    assert_type(await ctx.ask("Which?", schema={"type": "string"}), Any)
    named = await ctx.dispatch("research", anything=1)
    assert_type(named, TaskHandle[Any])
    return [(await handle).topic]


@subagent()
def nothing(ctx: TaskContext) -> None: ...


text_counter: Subagent[[str], int] = count
assert_type(nothing, Subagent[[], None])
assert_type(research.options(timeout=3).name, str)


async def use(session: Session) -> None:
    handle = await session.dispatch(research, "chips", depth=2)
    assert_type(handle, TaskHandle[Report])
    assert_type(await handle, Report)
    assert_type(await handle.result(), Report)
    assert_type(await handle.cancel(force=True), bool)
    assert_type(await (await session.dispatch(count, "x")), int)
    assert_type(await (await session.dispatch(slow)), list[str])
    assert_type(await session.dispatch(research.options(timeout=1), topic="x"), TaskHandle[Report])
    assert_type(await session.dispatch("research", anything=1), TaskHandle[Any])
    assert_type(handle.events(after=3), AsyncIterator[AnyEvent | Gap])
    async for item in session.events():
        assert_type(item.seq, int)
        if item.type == "task.progress":
            assert_type(item.data.message, str)
        elif item.type == "gap":
            assert_type(item, Gap)
    async for delivery in session.inbox():
        assert_type(delivery, Delivery)
        assert_type(await delivery.ack(), bool)
    async for batch in session.batches(coalesce=0.5):
        assert_type(batch, Batch)
        assert_type(list(batch), list[Delivery])
        assert_type(await batch.ack(), int)
