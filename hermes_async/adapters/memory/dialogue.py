"""Questions, answers and messages in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from hermes_async.adapters.memory.entry import Entry
from hermes_async.adapters.memory.gate import MemoryGate
from hermes_async.adapters.memory.logs import MemoryLogs
from hermes_async.adapters.memory.nudges import Nudges
from hermes_async.core.dialogue import MOST_MESSAGES, MOST_UNREAD
from hermes_async.core.hint import Hint
from hermes_async.domain.events import AnyEvent, AppliedData, answered, asked, task_event
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.refusals import too_many_messages, too_much_unread
from hermes_async.domain.task import Task, TaskStatus


class MemoryDialogue(MemoryLogs):
    """What is said between tasks and their parents."""

    _gate: MemoryGate

    def __init__(self, max_length: int, now: Callable[[], float]) -> None:
        super().__init__(max_length, now)
        self._kept: dict[str, Entry] = {}

    @property
    def _entries(self) -> dict[str, Entry]:
        """The tasks, for whoever may use the store."""
        self.home.loop()
        return self._kept

    @abstractmethod
    def _write(self, entry: Entry, event: AnyEvent) -> None:
        """Apply an event that is allowed, and log it."""

    async def ask(self, task: Task, question: Question) -> Answer | bool:
        entry = self._entries.get(task.id)
        if entry is None or not entry.is_begun(task.attempt):
            return False
        is_open = entry.task.question is not None and entry.task.question.question_id == question.question_id
        if is_open and self._waits(entry, task):
            return True
        self._withdraw_question(task)
        known = entry.task.answers.get(question.question_id)
        if known is not None:
            return known
        self._close_question(entry)
        self._gate.leave(entry.task)
        self._write(entry, asked(task, question))
        entry.question_seq = entry.seq
        return True

    async def answer(self, task: Task, answer: Answer, token: str, *, own: bool = False) -> bool:
        entry = self._entries.get(task.id)
        if entry is not None and entry.answered.get(answer.question_id) == token:
            return True
        question = entry.task.question if entry else None
        if entry is None or question is None or question.question_id != answer.question_id:
            return False
        if own and not self._waits(entry, task):
            return False
        self._resume(entry, answer)
        entry.answered[answer.question_id] = token
        return True

    async def say(self, event: AnyEvent) -> int:
        entry = self._entries.get(event.task_id or "")
        if entry is None:
            return 0
        if known := self._known(event):
            return known
        if entry.task.status.is_terminal:
            return 0
        if entry.unread >= MOST_UNREAD:
            raise too_much_unread(entry.task.id, entry.unread)
        if len(entry.messages) >= MOST_MESSAGES:
            raise too_many_messages(entry.task.id, len(entry.messages))
        self._write(entry, event)
        entry.messages.append(self._session(entry.task.session_id).log[-1])
        entry.unread += 1
        entry.nudges.tell()
        return self._know(event, entry.seq)

    async def hear(self, task: Task, after: int) -> Sequence[AnyEvent] | None:
        entry = self._entries.get(task.id)
        if entry is None or not entry.is_begun(task.attempt):
            return None
        found = [event for event in entry.messages if event.seq > after]
        for event in found:
            self._apply(entry, event.seq)
        return found

    @asynccontextmanager
    async def watch_task(self, task_id: str) -> AsyncIterator[Hint]:
        entry = self._entries.get(task_id)
        yield Nudges() if entry is None else entry.nudges

    def _apply(self, entry: Entry, message: int) -> None:
        attempt, up_to = entry.heard_now
        if attempt != entry.task.attempt or message > up_to:
            data = AppliedData(message=message)
            self._write(entry, task_event(entry.task, "task.message_applied", data, n=f"applied-{message}"))
            entry.heard_now = (entry.task.attempt, message)
        if message > entry.heard:
            entry.heard, entry.unread = message, entry.unread - 1

    def _withdraw_question(self, task: Task) -> None:
        """The agent has stopped asking."""
        entry = self._entries.get(task.id)
        if entry is not None and entry.task.question is not None and self._waits(entry, task):
            self._resume(entry, Answer(question_id=entry.task.question.question_id, by="withdrawn"))

    @staticmethod
    def _waits(entry: Entry, task: Task) -> bool:
        now = entry.task
        return (now.status, now.attempt) == (TaskStatus.INPUT_REQUIRED, task.attempt)

    def _resume(self, entry: Entry, answer: Answer) -> None:
        """The open question of a task has come to an end; if it waits for that, it goes on."""
        self._close_question(entry)
        self._write(entry, answered(entry.task, answer))
        entry.nudges.tell()

    def _close_question(self, entry: Entry) -> None:
        """A question is open no more: its parent need not hear of it."""
        self._session(entry.task.session_id).inbox.pop(entry.question_seq, None)
        entry.question_seq = 0
