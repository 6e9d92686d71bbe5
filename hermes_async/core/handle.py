"""A task handle: what the parent holds while the subagent works elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import nullcontext
from secrets import token_hex
from typing import Any, Generic, TypeVar, cast

from pydantic import JsonValue, ValidationError

from hermes_async.core.arguments import Flag, Name, Seq, Text, strict
from hermes_async.core.aside import Waiting
from hermes_async.core.feed import End, Feed
from hermes_async.core.journal import Journal, patiently
from hermes_async.core.json_type import JsonType
from hermes_async.core.page import Page
from hermes_async.core.records import seen
from hermes_async.core.signature import EVENT_BYTES, as_json, result_misfit
from hermes_async.domain.errors import (
    InvalidInput,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskRejected,
    UnknownTask,
    UnreadableTask,
)
from hermes_async.domain.events import UNREADABLE, AnyEvent, MessageData, task_event
from hermes_async.domain.gap import Gap
from hermes_async.domain.json_schema import misfit
from hermes_async.domain.lifecycle import TARGET, TERMINAL_TYPES
from hermes_async.domain.question import Answer
from hermes_async.domain.refusals import has_ended, not_asked
from hermes_async.domain.task import Task, TaskStatus

R = TypeVar("R")


class TaskHandle(Generic[R]):
    """A task that was accepted. Await it for its result; it works from any process that knows the id."""

    def __init__(
        self,
        task: Task,
        journal: Journal,
        feed: Feed,
        result: JsonType[R] | None = None,
        aside: Waiting | None = None,
        repeated: bool = False,
        end: End | None = None,
    ) -> None:
        self.id = task.id
        self.session_id = task.session_id
        self.trace_id = task.birth.trace_id
        self._lane = task.lane
        #: It has ended, and this handle knows; it may have ended before.
        self.has_ended = False
        #: An idempotency key led to a task that was there before.
        self.repeated = repeated
        self._journal = journal
        self._feed = feed
        self._result = result
        #: A parent task steps aside while it waits for this one.
        self._aside: Waiting = aside or nullcontext
        #: Awaited since before the task was born, if somebody followed the session then.
        self._end = end

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}>"

    def __await__(self) -> Generator[object, None, R]:
        return self.result().__await__()

    async def task(self) -> Task:
        """Return the task's record as it is now.

        Raises:
            UnknownTask: the record was pruned.
            UnreadableTask: this version cannot read it.
        """
        return await find(self._journal, self.id)

    async def ended(self) -> Task:
        """Wait for the task to end, however it ends, and return its record.

        In a chat, a store that is away is an error; a parent task waits for it, as all work does.
        """
        end = await self._waited()
        return end if isinstance(end, Task) else await self.task()

    async def _waited(self) -> Task | AnyEvent:
        """Wait for the task to end and return what told of it: its record, or the event."""
        if self._end is not None and self._end.event is not None:
            self.has_ended = True
            return self._end.event
        async with self._aside():
            if self._aside is nullcontext:
                return await self._told()
            return await patiently(self._told, f"the wait for {self.id}")

    async def _told(self) -> Task | AnyEvent:
        async with self._feed.follow(self.session_id) as reader:
            while True:
                end = reader.end_of(self.id)
                if end is not self._end and (task := await self._if_ended()):  # it may lie behind the reader
                    return task
                with self._feed.lookout.over(self.id, self._lane):
                    await reader.told(end.seen)
                if end.event is not None:
                    self.has_ended = True
                    return end.event

    async def _if_ended(self) -> Task | None:
        """Return the record if the task has ended; of one that cannot be read, how is known all the same."""
        try:
            task = await self.task()
        except UnreadableTask as exc:
            task = exc.known
            if task.status is TaskStatus.COMPLETED:
                raise
        self.has_ended = task.status.is_terminal
        return task if self.has_ended else None

    async def result(self) -> R:
        """Wait for the task to end and return what the agent returned.

        Raises:
            TaskFailed: with `.reason` and `.error`.
            TaskCancelled: somebody cancelled it.
            TaskRejected: a limit refused it.
            UnreadableTask: it has completed, and this version cannot read its output.
            InvalidInput: what it has returned is not of the type that its function says; `task()` has it.
        """
        end = await self._waited()
        status = end.status if isinstance(end, Task) else TARGET[end.type]
        said: Any = end if isinstance(end, Task) else end.data
        if status is not TaskStatus.COMPLETED:
            raise _error(self.id, end.agent, status, said)
        return self._fit(said.output, end.agent) if self._result else cast("R", said.output)

    def _fit(self, output: JsonValue, agent: str | None) -> R:
        assert self._result is not None
        try:
            return self._result.read(output)
        except ValidationError as exc:
            raise result_misfit(agent, exc) from exc

    @strict
    async def events(self, after: Seq = 0) -> AsyncIterator[AnyEvent | Gap]:
        """Yield the task's events with a `seq` beyond `after`, past and future, until it has ended.

        A `Gap` (its `type` is `gap`) takes the place of events that are no longer kept.
        """
        born = await self._feed.store.born(self.id)
        begin = max(after, born - 1)  # nothing of it lies before that
        place = _Place(self.id, begin)
        pages = self._feed.pages(self.session_id, begin)
        waits: Waiting = nullcontext
        while not place.has_ended:
            async with waits():
                with self._feed.lookout.over(self.id, self._lane):
                    page = await anext(pages)
            waits = nullcontext if page.events else self._aside
            for event in place.advance(page):
                if missing := place.missing_before(event):
                    yield await self._gap(missing)
                yield event
            if page.events:
                continue
            if missing := place.missing_before(None):
                yield await self._gap(missing)
            if await self._has_nothing_beyond(place):
                return

    async def _gap(self, missing: tuple[int, int]) -> Gap:
        as_of = await self._journal.store.last_seq(self.session_id)  # first: the task may then be newer
        return Gap.of(missing, as_of, await self._journal.store.load_all([self.id]))

    async def _has_nothing_beyond(self, place: _Place) -> bool:
        """Tell whether the task has ended at or before a place up to which all was read."""
        place.unsure = place.unsure and (await named(self._journal, self.id)).status.is_terminal
        return place.unsure and await self._journal.store.last_seq(self.session_id) <= place.after

    @strict
    async def answer(self, value: JsonValue, question: Name = None) -> bool:
        """Answer what the task asks, and return True; the first answer counts.

        Args:
            value: the answer, as JSON values.
            question: the id of the question that is meant; the open one by default.

        Raises:
            NotTaken: nothing is asked, that is not asked now, or somebody was first.
            InvalidInput: it does not fit the schema of the question, or is larger than an event may be.
            UnknownTask: the record was pruned.
        """
        plain = as_json(value, "the answer", limit=EVENT_BYTES)
        task = await self.task()
        asked = task.question
        if asked is None or question not in (None, asked.question_id):
            raise not_asked(task, question)
        fault = misfit(asked.answer_schema, plain)
        if fault:
            raise InvalidInput(f"{fault}; the question is: {asked.question}")
        answer = Answer(question_id=asked.question_id, answer=plain)
        if not await self._journal.store.answer(task, answer, token_hex(8)):
            raise not_asked(await self.task(), asked.question_id)
        return True

    @strict
    async def send(self, text: Text, data: JsonValue = None) -> int:
        """Say something to the task, which reads it with `ctx.messages()`; return the event's `seq`.

        A task that has not begun finds it when it begins.

        Raises:
            NotTaken: the task has ended, or has too much to read already.
            InvalidInput: it has no JSON form, or is larger than an event may be.
            UnknownTask: the record was pruned.
        """
        said = MessageData(**as_json({"text": text, "data": data}, "the message", limit=EVENT_BYTES))
        task = await self.task()
        seq = await self._journal.store.say(task_event(task, "task.message", said, n=f"said-{token_hex(8)}"))
        if not seq:
            raise has_ended(await self.task())
        return seq

    @strict
    async def cancel(self, *, force: Flag = False, cascade: Flag = True) -> bool:
        """Ask for the task and its descendants to be stopped; return False when it had ended already.

        It may have been ended by an earlier call that has raised.

        Args:
            force: kill what runs them instead of letting it clean up. A coroutine that does not heed that
                takes its worker process along: the other tasks there begin again, in another attempt.
            cascade: False: leave the tasks alone that this one has dispatched.

        Raises:
            UnknownTask: there is none.
        """
        await named(self._journal, self.id)
        reached = await self._journal.cancel(self.id, force=force, cascade=cascade)
        return self.id in (*reached.running, *reached.ended)


class _Place:
    """How far a task's events have been read in the log of its session."""

    def __init__(self, task_id: str, after: int) -> None:
        self.after = after
        self.has_ended = False
        #: Whether its end may lie behind `after`, or was trimmed.
        self.unsure = True
        self._task_id = task_id
        #: What was trimmed; whether it was ours shows by what comes next.
        self._missing: tuple[int, int] | None = None

    def advance(self, page: Page) -> Iterator[AnyEvent]:
        """Yield the task's events of a page."""
        if page.gap is not None:
            self._missing = ((self._missing or page.gap)[0], page.gap[1])
            self.unsure = True
        for event in page.events:
            self.after = event.seq
            if event.task_id == self._task_id:
                self.has_ended = event.type in TERMINAL_TYPES
                self.unsure = self.unsure or event.type == UNREADABLE
                yield event
                if self.has_ended:
                    return

    def missing_before(self, event: AnyEvent | None) -> tuple[int, int] | None:
        """Return once what is missing before the task's next event (None: there is none yet)."""
        missing, self._missing = self._missing, None
        return None if event is not None and event.type == "task.queued" else missing


async def find(journal: Journal, task_id: str) -> Task:
    """Return a task's record.

    Raises:
        UnknownTask: there is none.
        UnreadableTask: this version cannot read it.
    """
    task = await journal.store.load(task_id)
    if task is None:
        raise unknown(task_id)
    return task


async def named(journal: Journal, task_id: str) -> Task:
    """Return a task's record, or what can be said of one that cannot be read.

    Raises:
        UnknownTask: there is none.
    """
    task = await seen(journal.store, task_id)
    if task is None:
        raise unknown(task_id)
    return task


def unknown(task_id: str) -> UnknownTask:
    """Return the refusal of an id that names no task, or none that may be seen."""
    return UnknownTask(f"no task {task_id}; `hermes-async task list` shows the tasks that there are")


def _error(task_id: str, agent: str | None, status: TaskStatus, said: Any) -> TaskError:
    """Return the error that a task's record, or the data of its last event, amounts to."""
    reason, error = getattr(said, "reason", None), getattr(said, "error", None)
    told = f": {error.type}: {error.message}" if error else ""
    why = f" ({reason})" if reason else ""
    kinds: dict[TaskStatus, type[TaskError]] = {
        TaskStatus.CANCELLED: TaskCancelled,
        TaskStatus.REJECTED: TaskRejected,
    }
    kind = kinds.get(status, TaskFailed)
    message = f"task {task_id} of {agent} {status}{why}{told}"
    return kind(message, task_id=task_id, reason=reason, error=error)
