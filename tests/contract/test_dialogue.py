"""What every store must do with questions, answers and messages, and that memory does it as Redis does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hermes_async.adapters.redis_store import RedisStore
from hermes_async.core.dialogue import MOST_MESSAGES, MOST_UNREAD
from hermes_async.core.ports import Store
from hermes_async.domain.agent import GateLimits
from hermes_async.domain.errors import NotTaken
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.lifecycle import apply
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Address, Task, TaskStatus
from tests.contract.conftest import MakeStore, closing
from tests.contract.steps import LEASE, claimed, loaded
from tests.support.values import DATA, falling, folded, make_event, make_task

pytestmark = pytest.mark.anyio
S = TaskStatus
WHICH: Question = DATA["task.input_required"]


def question(id: str = "1-a", **more: Any) -> Question:
    return WHICH.model_copy(update={"question_id": id, **more})


def reply(value: Any = "this", id: str = "1-a", by: Any = "answer") -> Answer:
    return Answer(question_id=id, answer=value, by=by)


async def running(store: Store, session_id: str = "chat", **options: Any) -> Task:
    task = await store.create(make_task(session_id, **options), None, None)
    return await claimed(store, task)


async def asking(store: Store, **options: Any) -> Task:
    task = await running(store, **options)
    assert await store.ask(task, WHICH) is True
    return task


async def log(store: Store, after: int = 0) -> list[AnyEvent]:
    return list((await store.events("chat", after, 10_000)).events)


async def types(store: Store) -> list[str]:
    return [event.type.removeprefix("task.") for event in await log(store)][2:]


async def inbox(store: Store) -> list[str]:
    return [event.type.removeprefix("task.") for event in await store.inbox("chat", 0, 100)]


async def is_held(store: Store) -> int:
    return sum((await store.traffic()).admitted.values())


async def lose(store: Store, task: Task) -> Task:
    """The attempt is lost, and the next one begins."""
    assert await store.append(make_event(task, "task.attempt_lost"))
    return await claimed(store, task)


# -- questions and answers -------------------------------------------------------------------------------
async def test_who_asks_waits_without_a_place_and_goes_on_with_the_answer(store: Store) -> None:
    task = await asking(store)
    record = await loaded(store, task)
    assert (record.status, record.question, record.attempt) == (S.INPUT_REQUIRED, WHICH, 1)
    assert (await is_held(store), await inbox(store)) == (0, ["input_required"])
    assert [task.id for task in await store.tasks(status=S.INPUT_REQUIRED)] == [task.id]
    assert await store.answer(record, reply(), "a")
    record = await loaded(store, task)
    assert (record.status, record.question, record.answers) == (S.RUNNING, None, {"1-a": reply()})
    assert (await inbox(store), await types(store)) == ([], ["input_required", "resumed"])
    assert await store.step_back(task) is True
    assert (await log(store))[-1].data == reply()
    assert await store.append(make_event(task, "task.completed"))
    assert await is_held(store) == 0


async def test_the_first_answer_counts(store: Store) -> None:
    task = await asking(store)
    answers = [store.answer(task, reply(n), f"token {n}") for n in range(20)]
    taken = [n for n, done in enumerate(await asyncio.gather(*answers)) if done]
    assert len(taken) == 1
    assert (await loaded(store, task)).answers == {"1-a": reply(taken[0])}
    assert await types(store) == ["input_required", "resumed"]


async def test_of_two_processes_one_answers(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as first, closing(RedisStore(redis_url)) as second:
        for n in range(30):
            task = await running(first, "chat")
            await first.ask(task, question(f"{n}-a"))
            calls = [each.answer(task, reply(1, f"{n}-a"), f"{n} {each}") for each in (first, second)]
            assert sorted(await asyncio.gather(*calls)) == [False, True]


async def test_a_call_that_is_repeated_changes_nothing(store: Store) -> None:
    task = await asking(store)
    assert await store.ask(task, WHICH) is True
    assert [await store.answer(task, reply(), "a") for _ in range(2)] == [True, True]
    assert await store.ask(task, WHICH) == reply()
    assert await types(store) == ["input_required", "resumed"]


async def test_a_call_that_is_repeated_after_other_news_changes_nothing(store: Store) -> None:
    task = await asking(store)
    await store.append(make_event(task, "task.progress", n=1))
    assert await store.ask(task, WHICH) is True
    assert await types(store) == ["input_required", "progress"]


async def test_an_answer_that_is_repeated_after_another_is_the_same(store: Store) -> None:
    task = await asking(store)
    assert await store.answer(task, reply(), "a")
    assert await store.ask(task, question("2-b"))
    assert await store.answer(task, reply(id="2-b"), "b")
    assert [await store.answer(task, reply(), token) for token in ("a", "c")] == [True, False]
    assert await types(store) == ["input_required", "resumed"] * 2


async def test_who_asks_something_else_asks_the_first_no_more(store: Store) -> None:
    task = await asking(store)
    assert await store.ask(task, question("2-b")) is True
    record = await loaded(store, task)
    assert (record.status, record.question, record.answers) == (S.INPUT_REQUIRED, question("2-b"), {})
    assert (await inbox(store), await is_held(store)) == (["input_required"], 0)
    assert await types(store) == ["input_required", "resumed", "input_required"]
    assert not await store.answer(task, reply(), "a")
    assert folded(record, await log(store)) == record


async def test_a_fallback_takes_over_from_who_asks(store: Store) -> None:
    """A branch of it failed meanwhile."""
    to = {"to": Address(concurrency_limit=1), "fallback": Address(concurrency_limit=1)}
    task = await running(store, options={"fallback": "spare"}, **to)
    await store.ask(task, WHICH)
    event = falling(task)
    assert await store.append(event, moved=apply(await loaded(store, task), event))
    second = await claimed(store, task)
    assert (second.agent, second.status, second.question) == ("spare", S.RUNNING, WHICH)
    assert await store.append(make_event(second, "task.completed"))
    assert (await inbox(store), await is_held(store)) == (["completed"], 0)
    assert not await store.answer(task, reply(), "a")
    other = await running(store, options={"fallback": "spare"}, **to)  # nothing is held of the agents' places
    assert await store.append(falling(other), moved=apply(await loaded(store, other), falling(other)))
    assert (await claimed(store, other)).agent == "spare"


async def test_nobody_can_answer_what_is_not_asked(store: Store) -> None:
    task = await running(store)
    assert not await store.answer(task, reply(), "a")
    await store.ask(task, WHICH)
    assert not await store.answer(task, reply(id="2-b"), "b")
    await store.append(make_event(task, "task.cancelled"))
    assert not await store.answer(task, reply(), "c")
    assert not await store.answer(make_task(), reply(), "d")
    assert await inbox(store) == ["cancelled"]


async def test_an_ended_attempt_cannot_ask(store: Store) -> None:
    task = await running(store)
    await lose(store, task)
    assert await store.ask(task, WHICH) is False
    assert await store.ask(make_task(), WHICH) is False
    assert (await loaded(store, task)).status is S.RUNNING


async def test_a_lost_attempt_s_answer_is_there_for_the_next_one(store: Store) -> None:
    task = await asking(store)
    await store.answer(task, reply(), "a")
    second = await lose(store, task)
    assert second.answers == {"1-a": reply()}
    assert await store.ask(second, WHICH) == reply()
    assert (await loaded(store, task)).status is S.RUNNING
    assert await store.ask(second, question("2-b")) is True


@pytest.mark.parametrize("claimed_before", [False, True])
async def test_a_lost_attempt_s_question_can_be_answered_until_it_is_asked_again(
    store: Store, claimed_before: bool
) -> None:
    task = await asking(store)
    assert await store.append(make_event(task, "task.attempt_lost"))
    assert (await loaded(store, task)).question == WHICH
    if claimed_before:
        second = await claimed(store, task)
    assert await store.answer(task, reply(), "a")
    assert not await store.answer(task, reply("late"), "b")
    assert await inbox(store) == []
    if not claimed_before:
        assert (await loaded(store, task)).status is S.QUEUED
        second = await claimed(store, task)
    assert await store.ask(second, WHICH) == reply()
    assert "answered" in await types(store)
    assert await loaded(store, task) == folded(task, await log(store))


async def test_a_question_that_is_asked_again_is_in_the_inbox_once(store: Store) -> None:
    task = await asking(store)
    second = await lose(store, task)
    assert await store.ask(second, WHICH) is True
    assert await inbox(store) == ["input_required"]
    assert (await store.inbox("chat", 0, 9))[0].attempt == 2
    third = await lose(store, second)
    assert await store.ask(third, question("1-other")) is True
    assert not await store.answer(third, reply(), "a")
    assert [event.data.question_id for event in await store.inbox("chat", 0, 9)] == ["1-other"]  # type: ignore[union-attr]


async def test_only_a_waiting_attempt_ends_its_own_question(store: Store) -> None:
    task = await asking(store)
    second = await lose(store, task)
    default = reply("so", by="default")
    assert not await store.answer(task, default, "a", own=True)
    assert not await store.answer(second, default, "b", own=True)
    await store.ask(second, WHICH)
    assert not await store.answer(task, default, "c", own=True)
    assert await store.answer(second, default, "d", own=True)
    assert (await loaded(store, task)).answers == {"1-a": default}


@pytest.mark.parametrize("by", ["timeout", "withdrawn"])
async def test_what_nobody_answered_is_asked_again(store: Store, by: str) -> None:
    task = await asking(store)
    assert await store.answer(task, reply(None, by=by), "a", own=True)
    record = await loaded(store, task)
    assert (record.status, record.question, record.answers) == (S.RUNNING, None, {})
    assert await inbox(store) == []
    assert not await store.answer(task, reply(), "b")
    assert await store.ask(await lose(store, task), WHICH) is True


async def test_who_wants_its_place_again_has_stopped_asking(store: Store) -> None:
    task = await asking(store)
    assert await store.step_back(task) is True
    record = await loaded(store, task)
    assert (record.status, record.question, await is_held(store)) == (S.RUNNING, None, 1)
    assert (await log(store))[-1].data == reply(None, by="withdrawn")
    assert await inbox(store) == []
    assert await store.step_back(task) is True
    assert await types(store) == ["input_required", "resumed"]


ONE = GateLimits(max_running=1)


async def test_who_was_answered_goes_before_those_who_have_not_begun(make_store: MakeStore) -> None:
    async with closing(make_store(limits=ONE)) as store:
        let_in: list[str] = []
        store.on_admitted(let_in.extend)
        task = await asking(store)
        other = await running(store)  # there is one place
        waiting = await store.create(make_task(options={"priority": 9}), None, None)
        await store.answer(task, reply(), "a")
        assert await store.step_back(task) is False
        await store.append(make_event(other, "task.completed"))
        assert await store.step_back(task) is True
        assert waiting.id not in let_in
        await store.append(make_event(task, "task.completed"))
        assert let_in[-1] == waiting.id


async def test_an_agent_s_other_branches_go_on_while_one_asks(store: Store) -> None:
    task = await asking(store)
    for n, type_ in enumerate(("task.progress", "task.partial", "session.message"), 1):
        assert await store.append(make_event(task, type_, n=n))
    child = make_task(parent_task_id=task.id, parent_attempt=1)
    await store.create(child, None, None)
    assert (await loaded(store, task)).status is S.INPUT_REQUIRED


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "retrying", "attempt_lost"])
async def test_the_end_of_an_attempt_that_asks_frees_all(store: Store, end: str) -> None:
    task = await asking(store)
    assert await store.append(make_event(task, f"task.{end}"))
    record = await loaded(store, task)
    assert record == folded(task, await log(store))
    assert "input_required" not in await inbox(store) or not record.status.is_terminal
    assert await store.lapsed() == []
    if not record.status.is_terminal:
        await store.append(make_event(await claimed(store, task), "task.completed"))
        assert await inbox(store) == ["completed"]
    assert await is_held(store) == 0


async def test_a_cancel_reaches_who_asks(store: Store) -> None:
    task = await asking(store)
    assert (await store.cancel(task.id, force=False, cascade=True)).running == [task.id]
    assert await store.append(make_event(task, "task.cancelled"))
    assert await inbox(store) == ["cancelled"]


async def test_a_cancel_between_two_attempts_closes_the_question(store: Store) -> None:
    task = await asking(store)
    await store.append(make_event(task, "task.attempt_lost"))
    assert (await store.cancel(task.id, force=False, cascade=True)).ended == [task.id]
    assert (await loaded(store, task)).question is None
    assert await inbox(store) == ["cancelled"]


async def test_a_lease_lasts_while_the_attempt_asks(store: Store) -> None:
    task = await asking(store)
    assert (await store.renew("w1", [task.id], LEASE)).held == [task.id]
    await store.renew("w1", [task.id], 0.0)
    assert await store.lapsed() == [task.id]
    assert await store.append(make_event(task, "task.attempt_lost"), lapsed=True)


# -- messages --------------------------------------------------------------------------------------------
def message(task: Task, text: str = "hello") -> AnyEvent:
    data = DATA["task.message"].model_copy(update={"text": text})
    return make_event(task, "task.message", data, n=f"said-{text}")


async def heard(store: Store, task: Task, after: int = 0) -> list[str]:
    found = await store.hear(task, after)
    assert found is not None
    return [event.data.text for event in found]  # type: ignore[union-attr]


async def test_messages_that_come_again_after_others_are_kept_once(store: Store) -> None:
    task, other = await running(store), await running(store)
    events = [message(task, str(n)) for n in range(20)]
    seqs = await asyncio.gather(*map(store.say, events))
    between = await store.say(message(other, "between"))
    assert await asyncio.gather(*map(store.say, events)) == seqs
    assert await heard(store, task) == [str(n) for n in range(20)]
    assert [event.seq for event in await log(store) if event.type == "task.message"] == [*seqs, between]
    assert await store.append(make_event(task, "task.completed"))
    assert [await store.say(event) for event in (events[3], message(task, "new"))] == [seqs[3], 0]


async def test_a_message_is_read_in_order_and_applied_once(store: Store) -> None:
    task = await running(store)
    assert await heard(store, task) == []
    seqs = [await store.say(message(task, text)) for text in ("one", "two")]
    found = await store.hear(task, 0)
    assert found == [event for event in await log(store) if event.seq in seqs]
    assert await heard(store, task, seqs[0]) == ["two"]
    await store.say(message(task, "three"))
    assert await heard(store, task, seqs[1]) == ["three"]
    applied = [event for event in await log(store) if event.type == "task.message_applied"]
    assert [event.data.message for event in applied] == [*seqs, seqs[1] + 3]
    assert len({event.id for event in applied}) == 3
    assert await loaded(store, task) == folded(task, await log(store))


async def test_a_message_waits_for_a_task_that_has_not_begun(store: Store) -> None:
    task = await store.create(make_task(), None, None)
    assert await store.say(message(task)) == 2
    assert await heard(store, await claimed(store, task)) == ["hello"]


async def test_the_next_attempt_hears_all_again(store: Store) -> None:
    task = await running(store)
    await store.say(message(task, "one"))
    await heard(store, task)
    second = await lose(store, task)
    await store.say(message(second, "two"))
    assert await store.hear(task, 0) is None
    assert await heard(store, second) == ["one", "two"]
    assert (await types(store)).count("message_applied") == 3


async def test_a_message_to_who_asks_is_taken(store: Store) -> None:
    task = await asking(store)
    assert await store.say(message(task))
    assert await heard(store, task) == ["hello"]


async def test_a_message_that_is_repeated_is_there_once(store: Store) -> None:
    task = await running(store)
    seq = await store.say(message(task))
    await store.append(make_event(task, "task.progress", n=1))
    assert await store.say(message(task)) == seq
    assert await heard(store, task) == ["hello"]


@pytest.mark.parametrize("end", ["task.completed", "task.failed", "task.cancelled"])
async def test_an_ended_task_hears_nothing(store: Store, end: str) -> None:
    task = await running(store)
    await store.append(make_event(task, end))
    assert await store.say(message(task)) == 0
    assert await store.hear(task, 0) is None
    assert await store.say(message(make_task())) == 0


async def test_too_much_unread_is_refused_until_it_is_read(store: Store) -> None:
    task = await running(store)
    await asyncio.gather(*(store.say(message(task, str(n))) for n in range(MOST_UNREAD)))
    with pytest.raises(NotTaken, match=f"{MOST_UNREAD} messages to read already"):
        await store.say(message(task, "more"))
    assert len(await heard(store, task)) == MOST_UNREAD
    second = await lose(store, task)
    assert len(await heard(store, second)) == MOST_UNREAD  # again, which frees nothing
    await asyncio.gather(*(store.say(message(task, f"more {n}")) for n in range(MOST_UNREAD)))
    with pytest.raises(NotTaken):
        await store.say(message(task, "too much"))


async def test_too_many_are_refused_even_if_all_are_read(store: Store) -> None:
    task, after = await running(store), 0
    for round_ in range(MOST_MESSAGES // MOST_UNREAD):
        said = [store.say(message(task, f"{round_} {n}")) for n in range(MOST_UNREAD)]
        await asyncio.gather(*said)
        found = await store.hear(task, after)
        assert found
        after = found[-1].seq
    with pytest.raises(NotTaken, match=f"has had {MOST_MESSAGES} messages"):
        await store.say(message(task, "more"))


# -- nudges and traces -----------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["answer", "say", "place", "end"])
async def test_whoever_waits_for_a_task_is_nudged(make_store: MakeStore, how: str) -> None:
    async with closing(make_store(limits=ONE)) as store:
        task = await asking(store)
        other = await running(store)
        calls: dict[str, Callable[[], Any]] = {
            "answer": lambda: store.answer(task, reply(), "a"),
            "say": lambda: store.say(message(task)),
            "end": lambda: store.append(make_event(task, "task.attempt_lost")),
            "place": lambda: store.append(make_event(other, "task.completed")),
        }
        if how == "place":
            await store.answer(task, reply(), "a")
            assert await store.step_back(task) is False
        async with store.watch_task(task.id) as hint, asyncio.timeout(5):
            nudged = asyncio.create_task(hint.wait(60.0))
            await asyncio.sleep(0.05)  # or memory would not see that somebody waits
            assert not nudged.done()
            await calls[how]()
            await nudged


async def test_whoever_listens_hears_though_all_begin_at_once(make_store: MakeStore) -> None:
    async with closing(make_store()) as store, AsyncExitStack() as stack, asyncio.timeout(1.5):
        tasks = [await running(store) for _ in range(20)]
        listen = (stack.enter_async_context(store.watch_task(task.id)) for task in [*tasks, *tasks])
        hints = await asyncio.gather(*listen)
        waits = [asyncio.create_task(hint.wait(60.0)) for hint in hints]
        await asyncio.sleep(0.05)
        await asyncio.gather(*(store.say(message(task)) for task in tasks))
        await asyncio.gather(*waits)


async def test_nothing_is_left_of_a_dialogue(redis_url: str) -> None:
    async with closing(RedisStore(redis_url)) as store:
        for end in ("completed", "failed", "cancelled"):
            task = await asking(store)
            await store.say(message(task))
            if end != "cancelled":
                await store.answer(task, reply(), end)
                await heard(store, task)
            await store.append(make_event(task, f"task.{end}"))
            await store.ack("chat", [entry.seq for entry in await store.inbox("chat", 0, 9)])
        await store.prune(0.0)
        assert await store._reads.read("KEYS", "*") == ["hermes:metrics"]
