"""What an attempt asks its parent, and what it is told meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from secrets import token_hex
from typing import Any, NoReturn, TypeVar

from hermes_async.core.aside import Aside, listening
from hermes_async.core.ending import leave
from hermes_async.core.hint import Hint
from hermes_async.core.journal import patiently
from hermes_async.core.ports import Store
from hermes_async.core.shape import Shape
from hermes_async.domain.errors import InvalidInput, QuestionTimeout
from hermes_async.domain.events import MessageData
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Task

T = TypeVar("T")

#: Seconds after which somebody who waits looks without having been nudged: a nudge may be lost.
LOOK_EVERY = 30.0


class Conversation:
    """Speaks for one claimed attempt; several branches of it may ask, but one question is open at a time.

    A question that the task has asked before, with the same number, text and schema, has the same id: an
    answer that an earlier attempt got, or that came after it was lost, is returned at once.

    Args:
        task: as it was claimed.
        store: where questions and answers are kept.
        aside: where it waits.
        began: by the monotonic clock, when it was claimed.
    """

    def __init__(self, task: Task, store: Store, aside: Aside, began: float) -> None:
        self._task = task
        self._store = store
        self._aside = aside
        self._began = began
        self._asking = asyncio.Lock()
        self._hearing = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._heard = 0
        #: Called when the record says that the attempt is not ours any more.
        self.on_lost: Callable[[], None] = lambda: None

    async def ask(self, text: str, shape: Shape, timeout: float | None, ending: Answer) -> Any:
        """Ask until an answer fits; one that does not is told as the `problem` of the next question.

        Args:
            text: the question.
            shape: what the answer must look like.
            timeout: seconds; None: wait for ever.
            ending: what ends the question then; its id is not known yet.
        """
        async with self._asking:
            question = self._question(text, shape, timeout)
            while True:
                answer = await self._answer_to(question, ending)
                if answer.by == "timeout":
                    raise QuestionTimeout(f"nobody has answered {text[:200]!r} within {timeout:g} s")
                try:
                    return shape.fit(answer.answer)
                except InvalidInput as exc:
                    again = {"question_id": self._id(text, shape), "problem": str(exc)}
                    question = question.model_copy(update=again)

    async def messages(self, wait: float) -> Sequence[MessageData]:
        """Return what this attempt has not read yet; if that is nothing, wait for so many seconds, aside."""
        found = await self._hear()
        if found or wait <= 0:
            return found
        until = time.monotonic() + wait
        async with listening(self._store, self._task) as hint, self._aside():
            while not (found := await self._hear()) and (left := until - time.monotonic()) > 0:
                await hint.wait(min(left, LOOK_EVERY))
        return found

    async def _hear(self) -> Sequence[MessageData]:
        async with self._hearing:
            found = await self._insist(lambda: self._store.hear(self._task, self._heard))
            if found is None:
                await self._end()
            if found:
                self._heard = found[-1].seq
            return [event.data for event in found if isinstance(event.data, MessageData)]

    def _question(self, text: str, shape: Shape, timeout: float | None) -> Question:
        id = self._id(text, shape)
        expires_at = None if timeout is None else self._now() + timeout
        left_open = self._task.question  # by an attempt that was lost
        if left_open and left_open.question_id == id and timeout is not None:
            expires_at = left_open.expires_at
        return Question(question_id=id, question=text, answer_schema=shape.schema, expires_at=expires_at)

    def _id(self, text: str, shape: Shape) -> str:
        what = json.dumps([text, shape.schema], sort_keys=True)
        return f"{next(self._numbers)}-{blake2b(what.encode(), digest_size=4).hexdigest()}"

    def _now(self) -> float:
        """The time by Redis' clock."""
        return (self._task.started_at or 0.0) + time.monotonic() - self._began

    async def _answer_to(self, question: Question, ending: Answer) -> Answer:
        known = self._task.answers.get(question.question_id)
        if known is not None:
            return known
        async with listening(self._store, self._task) as hint, self._aside(halted=True):
            asked = await self._insist(lambda: self._store.ask(self._task, question))
            if isinstance(asked, Answer):
                return asked
            while asked:
                await self._wait(question, hint, ending)
                answer = await self._found(question)
                if answer is not None:
                    return answer
            return await self._end()

    async def _wait(self, question: Question, hint: Hint, ending: Answer) -> None:
        """Wait for a nudge, or end the question because its time is over; an answer may be faster."""
        left = LOOK_EVERY if question.expires_at is None else question.expires_at - self._now()
        if left > 0:
            await hint.wait(min(left, LOOK_EVERY))
            return
        end, token = ending.model_copy(update={"question_id": question.question_id}), token_hex(8)
        await self._insist(lambda: self._store.answer(self._task, end, token, own=True))

    async def _found(self, question: Question) -> Answer | None:
        """Return how a question has ended, or None while it is open.

        Raises:
            CancelledError: the attempt is over.
        """
        record = await self._insist(lambda: self._store.load(self._task.id))
        if record is None or not record.status.is_begun or record.attempt != self._task.attempt:
            await self._end()
        if record.question is not None and record.question.question_id == question.question_id:
            return None
        timed_out = Answer(question_id=question.question_id, by="timeout")
        return record.answers.get(question.question_id, timed_out)

    async def _end(self) -> NoReturn:
        await leave(self.on_lost)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await patiently(ask, f"what {self._task.id} says")
