"""The port to what is said between a task and its parent: questions with their answers, and messages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hermes_async.core.hint import Hint
from hermes_async.domain.events import AnyEvent
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.task import Task

#: Messages of a task that no attempt has read yet, and all that are kept for its next attempts.
MOST_UNREAD, MOST_MESSAGES = 100, 1_000
#: The newest messages of a session, also to its tasks, of which each is known if it is written again.
RECENT = 1_000


class Dialogue(Protocol):
    """What the pen writes of a dialogue. Every method that writes is atomic and may be repeated."""

    async def ask(self, task: Task, question: Question) -> Answer | bool:
        """Log the `task.input_required` of a running attempt, and give back its place; True: it is open.

        The earlier answer, if the question has been answered; False: the attempt is not running any more.
        A question that was open is so no more, and not in the inbox either.
        """
        ...

    async def answer(self, task: Task, answer: Answer, token: str, *, own: bool = False) -> bool:
        """Answer the open question of a task; False: it is not open, or somebody was first.

        It is logged as `task.resumed` if the task waits, else, for its next attempt, as `task.answered`.

        Args:
            task: any state of it; of the attempt that asks, if that answers itself.
            answer: with the id of the question.
            token: names this call, which may be repeated.
            own: the attempt itself ends its question, so it must still be waiting.
        """
        ...

    async def say(self, event: AnyEvent) -> int:
        """Log a `task.message` and keep it for the task's attempts; return its `seq`, 0 for an ended task.

        Raises:
            NotTaken: too many are unread, or are kept.
        """
        ...

    async def hear(self, task: Task, after: int) -> Sequence[AnyEvent] | None:
        """Return the messages beyond `seq`, each logged once as applied by this attempt; None: it is over."""
        ...

    def watch_task(self, task_id: str) -> AbstractAsyncContextManager[Hint]:
        """Listen for nudges about one task: an answer, a message, its place."""
        ...
