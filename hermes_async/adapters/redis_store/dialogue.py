"""Questions, answers and messages over Redis."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_async.adapters.redis_store.codec import decode_event
from hermes_async.adapters.redis_store.penholder import Penholder
from hermes_async.adapters.redis_store.pipe import Script
from hermes_async.core.dialogue import MOST_MESSAGES, MOST_UNREAD, RECENT
from hermes_async.domain.events import AnyEvent, asked
from hermes_async.domain.question import Answer, Question
from hermes_async.domain.refusals import too_many_messages, too_much_unread
from hermes_async.domain.task import Task

ASK = Script("ask", "gate")
ANSWER, HEAR = map(Script, ("answer", "hear"))
SAY = Script("say", "recent")


class RedisDialogue(Penholder):
    """One script per intent."""

    async def ask(self, task: Task, question: Question) -> Answer | bool:
        event = asked(task, question)
        what = (question.question_id, event.id, question.model_dump_json())
        prefix = self._keys.of_task(task.id)
        found, *answer = await self._admitting(ASK, prefix, task.id, task.attempt, *what)
        return Answer.model_validate_json(answer[0]) if answer else bool(found)

    async def answer(self, task: Task, answer: Answer, token: str, *, own: bool = False) -> bool:
        fence = task.attempt if own else ""
        said = (answer.question_id, token, fence, int(answer.stands), answer.model_dump_json())
        return bool(await self._pen(ANSWER, self._keys.of_task(task.id), task.id, *said))

    async def say(self, event: AnyEvent) -> int:
        assert event.task_id is not None
        bounds = (MOST_UNREAD, MOST_MESSAGES, RECENT)
        args = (event.task_id, *bounds, event.id, event.data.model_dump_json())
        seq, *count = await self._pen(SAY, self._keys.of_task(event.task_id), *args)
        if seq < 0:
            raise (too_much_unread if seq == -1 else too_many_messages)(event.task_id, count[0])
        return int(seq)

    async def hear(self, task: Task, after: int) -> Sequence[AnyEvent] | None:
        found = await self._pen(HEAR, self._keys.of_task(task.id), task.id, task.attempt, after)
        if found is None:
            return None
        entries = ((entry, dict(zip(flat[::2], flat[1::2], strict=True))) for entry, flat in found[0])
        return [decode_event(task.session_id, entry, fields) for entry, fields in entries]
