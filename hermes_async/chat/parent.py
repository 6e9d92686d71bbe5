"""A conversation with a parent's model, in which tasks are delegated and their news come by themselves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from itertools import count
from typing import Any, Final, Literal, Self

from hermes_async.adapters.model.names import INSTALL
from hermes_async.adapters.tools import ToolNames, load_tools
from hermes_async.chat.files import file_of
from hermes_async.chat.inbox import Inbox
from hermes_async.chat.pieces import Piece, TurnEnded
from hermes_async.chat.spending import Spending
from hermes_async.chat.toolbox import Toolbox
from hermes_async.chat.turn import Turn
from hermes_async.chat.watchers import Watchers
from hermes_async.core.delegation import Delegation
from hermes_async.core.ending import end
from hermes_async.core.feed import ASK_AGAIN
from hermes_async.core.hermes import Hermes
from hermes_async.core.home import Home
from hermes_async.domain.errors import InvalidInput, TurnFailed

try:
    from pydantic_ai.exceptions import AgentRunError, ModelContextWindowExceededError

    from hermes_async.adapters.model.answers import whole
    from hermes_async.adapters.model.sentences import named
    from hermes_async.chat.faults import STILL, again_in, sentence
    from hermes_async.chat.history import History
    from hermes_async.chat.making import full_of, instructions_of, model_of
    from hermes_async.chat.memory import Memory
    from hermes_async.chat.mind import Mind
except ModuleNotFoundError as error:
    raise ImportError(f"a parent that chats needs an optional package: {INSTALL}") from error

logger = logging.getLogger("hermes.chat")

#: Seconds that the first news wait for others, when nobody is talking.
COALESCE: Final = 0.25
#: Ours, and those of installed packages.
TOOLS: Final = ToolNames()
#: Seconds that a turn has to keep what was said, when the chat is left.
FAREWELL: Final = 5.0


class ChatParent:
    """A parent agent in a session: talks, delegates, and takes a turn when its inbox has news.

    Use it as an async context manager. One turn runs at a time; what is said meanwhile waits, and so do news.

    Args:
        hermes: where tasks are dispatched.
        parent: a conversational agent of agents.yaml that has a `model`.
        session_id: the session; a new one by default. With `folder`, the conversation goes on where it was.
        folder: where conversations are kept, a file for each session; None: only in memory.
        model: a model of pydantic-ai to use instead of the agent's.
        tools: the names that the agent's `tools` are taken from.
        coalesce: seconds that the first news wait for others before they get a turn.

    Raises:
        UnknownAgent: agents.yaml has no such parent.
        ConfigError: it is no conversation, has no model, or its model or tools cannot be used here.
        InvalidInput: on entering: another chat has the session's conversation.
    """

    def __init__(
        self,
        hermes: Hermes,
        parent: str,
        *,
        session_id: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        model: Any = None,
        tools: ToolNames = TOOLS,
        coalesce: float = COALESCE,
    ) -> None:
        spec = hermes.registry.config.agent(parent)
        self.session = hermes.session(session_id, parent)
        self._tracing = hermes.tracing
        self._moved = asyncio.Event()
        path = file_of(folder, self.session.id) if folder is not None else None
        self._history = History(self.session.id, parent, path)
        self._limits = spec.limits
        self._model = model or model_of(spec)
        inbox = Inbox(self.session, coalesce, self._moved.set)
        delegation = Delegation(self.session, ack=inbox.tell)
        toolbox = Toolbox(delegation, load_tools(tools, spec.tools))
        full = full_of(spec) if model is None else f"{model.system}:{model.model_name}"
        told = instructions_of(spec, delegation)
        self._mind = Mind(self._model, full, told, toolbox, self._history, spec)
        self._memory = Memory(self._history, inbox, delegation.news)
        self._home = Home("chat", "with `async with ChatParent(...)`", by_itself=False)
        self._stack = AsyncExitStack()
        self._queue: deque[Turn] = deque()
        #: Turns that had not ended when the chat was left.
        self._left: list[Turn] = []
        self._watchers = Watchers()
        self._numbers = count(1)
        #: The turn that is under way or about to begin, and what may be interrupted in it.
        self._turn: Turn | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._may_interrupt = self._is_interrupted = False
        #: Turns in a row that the model has not answered.
        self._failures = 0
        #: Why, as it was told.
        self._told = ""
        #: When they are tried again by themselves, by the loop's clock; None: when somebody says something.
        self._again_at: float | None = None

    async def __aenter__(self) -> Self:
        self._home.open()
        self._stack.callback(self._watchers.tell, None)
        try:
            await self._stack.enter_async_context(self._model)
            await self._memory.open()
        except BaseException:
            self._home.is_closed = True
            await self._stack.aclose()
            raise
        self._stack.push_async_callback(self._memory.close)
        living = asyncio.create_task(self._live(), name=f"hermes-chat {self.session.id}")
        self._stack.push_async_callback(self._lay_aside)
        self._stack.push_async_callback(end, living)
        self._stack.push_async_callback(self._finish)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._home.loop()
        self._home.is_closed = True
        await self._stack.aclose()

    @property
    def is_busy(self) -> bool:
        """Whether a turn is under way, or will be without anybody saying anything."""
        comes = self._memory.inbox.has_news and not self._failures
        return self._turn is not None or bool(self._queue) or self._again_at is not None or comes

    @property
    def has_failed(self) -> bool:
        """Whether the model has not answered, and is not asked again before somebody says something."""
        return self._failures > 0 and self._again_at is None

    @property
    def unanswered(self) -> str | None:
        """What was said and not answered, for a fault of the model or a crash; `again` asks again."""
        return self._history.unanswered

    @property
    def last_answer(self) -> str:
        """What the parent said last, also in an earlier chat of the session."""
        return self._history.last_answer()

    def say(self, text: str, *, on_busy: Literal["enqueue", "interrupt"] = "enqueue") -> Turn:
        """Say something, and return the turn that answers it: await it, or iterate over its pieces.

        Args:
            text: what is said.
            on_busy: `interrupt` ends the turn that is under way; `enqueue` waits for its end.

        Raises:
            InvalidInput: nothing is said.
            UserError: the chat is not open, or was left (Closed), or belongs to another event loop.
        """
        self._home.loop()
        if not text.strip():
            raise InvalidInput("nothing was said: give some text")
        turn = self._enqueue(whole(text))
        if on_busy == "interrupt":
            self.interrupt()
        return turn

    def again(self) -> Turn | None:
        """Have the model asked again what it has not answered; None: it has answered everything."""
        self._home.loop()
        if not (self._history.unanswered or self._history.is_unfinished or self._failures):
            return None
        return self._enqueue(None)

    async def forget(self) -> None:
        """Begin the conversation anew; tasks and their news stay.

        Raises:
            InvalidInput: a turn is under way.
        """
        self._home.loop()
        if self._turn is not None or self._queue:
            raise InvalidInput("a turn is under way: wait for its end, or interrupt it")
        self._history.clear()
        self._failures, self._again_at = 0, None
        await self._memory.write()
        self._moved.set()  # news whose turn had no answer have another

    def interrupt(self) -> bool:
        """End the turn that is under way, not its tasks; return False when there is none.

        What was said so far stays in the conversation.
        """
        if self._turn is None or not self._may_interrupt:
            return False
        self._is_interrupted = True
        if self._speaking is not None:
            self._speaking.cancel()
        return True

    def pieces(self) -> AsyncIterator[Piece]:
        """Return what happens in all turns from this call on, until the chat is left."""
        if self._home.is_closed:  # before it is opened one may begin to watch
            raise self._home.closed()
        return self._watchers.watch()

    def _enqueue(self, said: str | None) -> Turn:
        turn = self._new_turn(said)
        self._queue.append(turn)
        self._moved.set()
        return turn

    def _new_turn(self, said: str | None = None) -> Turn:
        return Turn(next(self._numbers), said, self._watchers.tell)

    async def _live(self) -> None:
        """Take one turn after the other."""
        while True:
            self._moved.clear()
            if self._queue:
                self._told = ""  # whoever asks is told all of it
                await self._take(self._queue.popleft())
            elif self._is_due():
                await self._take(self._new_turn())
            elif self._memory.inbox.has_news and not self._failures:
                await self._take(self._new_turn(), only_news=True)
            else:
                await self._rest()

    def _is_due(self) -> bool:
        return self._again_at is not None and asyncio.get_running_loop().time() >= self._again_at

    async def _rest(self) -> None:
        """Wait until something may have to be done."""
        left = None if self._again_at is None else self._again_at - asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._moved.wait()

    async def _take(self, turn: Turn, *, only_news: bool = False) -> None:
        """Take a turn, with all the news that there are."""
        self._turn, self._again_at = turn, None
        self._may_interrupt, self._is_interrupted = True, False
        try:
            turn.news = await self._memory.inbox.take()
            if turn.news or not only_news:
                turn.begin()
                await self._think(turn)
            elif self._memory.inbox.has_news:  # the store is away
                await asyncio.sleep(ASK_AGAIN)
        except Exception as error:  # ours: the next turn must be all the same
            turn.add(self._failed(TurnEnded(turn.number), error))
        finally:
            self._turn = None

    async def _think(self, turn: Turn) -> None:
        spending, before = Spending(self._limits), self._history.length
        prompt = await self._memory.prompt(turn)
        ended = TurnEnded(turn.number)
        if prompt or self._history.is_unfinished:
            speaking = asyncio.create_task(self._speak(turn, prompt, spending), name="hermes-chat-speaks")
            ended = await self._end_of(ended, speaking)
        self._may_interrupt = False
        is_told = ended.how == "done" or self._history.length > before
        await self._memory.keep(turn, is_told=is_told, is_over=not self._failures)
        turn.add(replace(ended, usage=spending.usage))

    async def _end_of(self, ended: TurnEnded, speaking: asyncio.Task[None]) -> TurnEnded:
        """Wait until a model has spoken, and return how that ended; only this may be interrupted."""
        self._speaking = speaking
        if self._is_interrupted:  # before it could begin: what was said goes with what is said next
            speaking.cancel()
        try:
            await asyncio.wait({speaking}, timeout=self._limits.seconds)
            took_too_long = not speaking.done()
            if took_too_long:
                speaking.cancel()
                await asyncio.wait({speaking}, timeout=FAREWELL)
        finally:
            self._speaking = None
            await end(speaking)
        if took_too_long:
            return self._failed(
                ended, TurnFailed(f"this turn has reached its limit of {self._limits.seconds:g} seconds")
            )
        if speaking.cancelled():
            return replace(ended, how="interrupted")
        error = speaking.exception()
        if isinstance(error, Exception):
            return self._failed(ended, error)
        return ended

    async def _speak(self, turn: Turn, prompt: str | None, spending: Spending) -> None:
        pieces = self._mind.turn(turn.number, prompt, spending)
        with self._tracing.turn(self.session.parent or "", self.session.id):
            async with aclosing(pieces):
                async for piece in pieces:
                    turn.add(piece)
        self._failures = 0

    def _failed(self, ended: TurnEnded, error: Exception) -> TurnEnded:
        if isinstance(error, TurnFailed):  # the model is well
            self._failures = 0
            return replace(ended, how="failed", error=str(error))
        self._failures += 1
        if isinstance(error, ModelContextWindowExceededError):
            self._history.unanswered = None  # with what is said next it would be too long again
        again = again_in(error, self._failures)
        if again is not None:
            self._again_at = asyncio.get_running_loop().time() + again
        if not isinstance(error, AgentRunError):
            logger.error("a turn of session %s has failed", self.session.id, exc_info=error)
        before, self._told = self._told, sentence(error, named(self._model))
        told = STILL if self._failures > 1 and self._told == before else self._told
        return replace(ended, how="failed", error=told, again_in=again)

    async def _finish(self) -> None:
        """Let the turn that is under way keep what was said so far."""
        turn = self._turn
        self._left = [*([turn] if turn else []), *self._queue]
        self._queue.clear()
        self.interrupt()
        if turn is not None and turn.pieces:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await turn.ended()

    async def _lay_aside(self) -> None:
        """Keep what was said and has had no turn, and tell who waits for one."""
        left = [turn for turn in self._left if turn.end is None]
        unsaid = [turn.said for turn in left if turn.said and not turn.pieces]
        if unsaid:
            self._history.unanswered = "\n\n".join(filter(None, (self._history.unanswered, *unsaid)))
            await self._memory.write()
        for turn in left:
            turn.add(TurnEnded(turn.number, "interrupted"))
