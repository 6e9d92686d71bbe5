"""How an agent speaks while it works: from any thread, coalesced, in order, and nothing is lost."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from hermes_async.core import reporter
from hermes_async.core.aside import Aside
from hermes_async.core.company import Company
from hermes_async.core.context import STATUS_LENGTH, TaskContext
from hermes_async.core.conversation import Conversation
from hermes_async.core.limits import Limits
from hermes_async.core.reporter import Reporter
from hermes_async.core.signature import EVENT_BYTES
from hermes_async.core.spending import Spending
from hermes_async.core.subagent import subagent
from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.task import Task
from tests.support.bench import Bench, MakeBench
from tests.support.values import make_event

pytestmark = pytest.mark.anyio
#: As the product has it; the bench is more impatient.
EVERY = reporter.EVERY


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench(echo)


async def speaker(bench: Bench) -> tuple[TaskContext, Reporter, Task]:
    """A context as a running agent has it."""
    await bench.session.dispatch(echo, "x")
    task = await bench.store.claim(await bench.queue.get(), "w1", 60.0)
    assert task is not None
    writer = Reporter(task, bench.hermes.journal)

    async def dispatch(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    limits = Limits(task)
    conversation = Conversation(task, bench.store, Aside(task, bench.store, limits), limits.began)
    company = Company(dispatch, conversation, Spending(task, bench.store))
    return TaskContext(task, writer, lambda: company), writer, task


async def news(bench: Bench) -> list[tuple[str, Any]]:
    events = (await bench.log())[2:]
    return [(event.type, event.data.model_dump()) for event in events]


async def test_a_context_knows_for_whom_it_works(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    assert (ctx.task_id, ctx.session_id, ctx.attempt) == (task.id, "chat", 1)
    assert (ctx.parent, ctx.depth, ctx.trace_id) == (None, 0, task.birth.trace_id)
    assert ctx.cancelled is False
    await writer.close()


async def test_ten_thousand_calls_from_a_thread_are_a_few_writes_and_the_last_is_there(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)

    def work() -> None:
        for n in range(10_000):
            ctx.progress(n / 100, f"step {n}")

    await asyncio.to_thread(work)
    await writer.close()
    told = [event.data for event in (await bench.log())[2:]]
    assert 1 <= len(told) < 100
    assert told[-1].message == "step 9999"
    percents = [each.progress_percent for each in told]
    assert percents == sorted(percents)
    assert (await bench.record(task)).progress == told[-1]


async def test_an_agent_that_never_stops_talking_is_written_four_times_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "EVERY", EVERY)
    ctx, writer, _ = await speaker(bench)
    began = time.monotonic()
    while time.monotonic() - began < 0.6:
        ctx.progress(50, f"after {time.monotonic() - began} s")
        await asyncio.sleep(0.005)
    await writer.close()
    seconds = time.monotonic() - began
    assert 2 <= len(await news(bench)) <= 4 * seconds + 2  # the first at once, the last at the end


async def test_many_threads_may_speak_at_once(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)

    def work(name: str) -> None:
        for n in range(200):
            ctx.partial(n, name)
            ctx.message(f"{name} {n}")

    names = [f"thread{n}" for n in range(5)]
    await asyncio.gather(*(asyncio.to_thread(work, name) for name in names))
    await writer.close()
    assert (await bench.record(task)).partials == dict.fromkeys(names, 199)
    said = [data["text"] for type_, data in await news(bench) if type_ == "session.message"]
    assert len(said) == 1000
    for name in names:
        assert [text for text in said if text.startswith(name)] == [f"{name} {n}" for n in range(200)]


async def test_different_news_are_written_in_the_order_of_their_last_word(bench: Bench) -> None:
    ctx, writer, _ = await speaker(bench)
    ctx.progress(1)
    ctx.partial("a", "one")
    ctx.message("hello", {"n": 1})
    ctx.partial("b", "two")
    ctx.progress(2, "later")
    await writer.close()
    assert await news(bench) == [
        ("task.partial", {"name": "one", "value": "a"}),
        ("session.message", {"text": "hello", "data": {"n": 1}}),
        ("task.partial", {"name": "two", "value": "b"}),
        ("task.progress", {"progress_percent": 2.0, "message": "later"}),
    ]


async def test_news_are_written_while_the_agent_works(bench: Bench) -> None:
    ctx, writer, _ = await speaker(bench)
    async with bench.hermes.feed.follow("chat") as reader:
        for n in range(3):
            seq = reader.seq
            ctx.progress(n)
            await asyncio.wait_for(reader.beyond(seq), 5)
    assert len(await news(bench)) == 3
    await writer.close()


async def test_a_store_that_is_away_loses_nothing(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    bench.store.away = 4
    for n in range(5):
        ctx.message(str(n))
        await asyncio.sleep(0)
    ctx.progress(50, "done")
    await writer.close()
    told = await news(bench)
    assert [data.get("text") for _, data in told] == ["0", "1", "2", "3", "4", None]
    assert (await bench.record(task)).progress is not None


async def test_a_lost_reply_says_nothing_twice(bench: Bench) -> None:
    ctx, writer, _ = await speaker(bench)
    bench.store.mute = {"append": 3}
    for n in range(5):
        ctx.message(str(n))
    await writer.close()
    assert [data["text"] for _, data in await news(bench)] == ["0", "1", "2", "3", "4"]


async def test_an_attempt_that_was_given_away_is_told(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    lost: list[bool] = []
    writer.on_lost = lambda: lost.append(True)
    await bench.store.append(make_event(task, "task.attempt_lost"))
    ctx.progress(1)
    ctx.message("late")
    await writer.close()
    assert lost == [True]
    assert len(await news(bench)) == 1


async def test_who_speaks_after_the_end_is_not_heard(bench: Bench) -> None:
    ctx, writer, _ = await speaker(bench)
    await writer.close()
    for _ in range(10):
        ctx.message("zombie")
    assert await news(bench) == []
    assert writer._news == {}


async def test_a_pause_between_rounds_ends_with_the_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "EVERY", 3600.0)
    ctx, writer, _ = await speaker(bench)
    ctx.progress(1)
    ctx.progress(2)
    await asyncio.wait_for(writer.close(), 5)
    assert [data["progress_percent"] for _, data in await news(bench)][-1] == 2


@pytest.mark.parametrize(
    ("percent", "shown"),
    [(None, None), (-5, 0), (0, 0), (33.5, 33.5), (250, 100), (math.inf, 100), (math.nan, 0)],
)
async def test_progress_is_clamped(bench: Bench, percent: float | None, shown: float | None) -> None:
    ctx, writer, task = await speaker(bench)
    ctx.progress(percent, "x" * 1000 + "\ud800")
    await writer.close()
    progress = (await bench.record(task)).progress
    assert progress is not None
    assert (progress.progress_percent, progress.message) == (shown, "x" * STATUS_LENGTH)


async def test_a_message_of_progress_may_be_anything(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    ctx.progress(50, 7)  # type: ignore[arg-type]
    await writer.close()
    progress = (await bench.record(task)).progress
    assert progress is not None
    assert progress.message == "7"


async def test_the_progress_callback_is_a_plain_function(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    library = threading.Thread(target=ctx.progress_callback, args=(10, "\ud800"))
    library.start()
    await asyncio.to_thread(library.join)
    await writer.close()
    progress = (await bench.record(task)).progress
    assert progress is not None
    assert (progress.progress_percent, progress.message) == (10, "?")


@pytest.mark.parametrize("value", [object(), math.nan, "\ud800", "x" * EVENT_BYTES])
async def test_what_no_event_can_carry_is_refused(bench: Bench, value: Any) -> None:
    ctx, writer, _ = await speaker(bench)
    with pytest.raises(InvalidInput, match="partial result 'a'"):
        ctx.partial(value, "a")
    with pytest.raises(InvalidInput, match="the message"):
        ctx.message("x", value)
    await writer.close()
    assert await news(bench) == []


async def test_a_partial_that_is_made_when_it_is_written(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    ctx, writer, task = await speaker(bench)
    pieces, made = list[str](), list[int]()

    def text() -> str:
        made.append(len(pieces))
        return "".join(pieces)

    for n in range(1_000):
        pieces.append(str(n))
        ctx.partial(text)
    ctx.partial(lambda: math.nan, "none")
    ctx.partial(lambda: 1, "after")
    await writer.close()
    partials = (await bench.record(task)).partials
    assert partials == {"output": "".join(map(str, range(1_000))), "after": 1}
    assert made == [1_000]
    assert "a task.partial of task" in caplog.text


async def test_a_partial_is_taken_as_it_is_now(bench: Bench) -> None:
    ctx, writer, task = await speaker(bench)
    value: dict[str, Any] = {"n": 1}
    ctx.partial(value)
    value["n"] = 2
    await writer.close()
    assert (await bench.record(task)).partials == {"output": {"n": 1}}
