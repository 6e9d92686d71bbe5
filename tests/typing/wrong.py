"""What a type checker must refuse: every line with a code in its comment, and no other."""

from __future__ import annotations

from hermes_async import Session, TaskContext, subagent


@subagent
async def research(ctx: TaskContext, topic: str, *, depth: int = 1) -> str:
    ctx.progress("half")  # arg-type
    ctx.partial(object())  # arg-type
    await ctx.dispatch(research)  # call-overload
    return topic


@subagent  # arg-type
def without_context() -> int:
    return 1


@subagent  # arg-type
def another_context(ctx: int) -> int:
    return 1


async def use(session: Session) -> None:
    await session.dispatch(research)  # call-overload
    await session.dispatch(research, 1)  # call-overload
    await session.dispatch(research, "x", 2)  # call-overload
    await session.dispatch(research, "x", depht=2)  # call-arg
    await session.dispatch(research.function, "x")  # call-overload
    research("x")  # operator
    print(session.dispatch(research, "x").id)  # attr-defined


async def another_result(session: Session) -> int:
    handle = await session.dispatch(research, "x")
    return await handle  # return-value
