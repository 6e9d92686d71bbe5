"""A chat in this process: what is said goes to the parent, what it says and what its tasks do to a voice."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio
import anyio.to_thread

from hermes_async.adapters.model.names import check_model
from hermes_async.chat.files import file_of, hold, let_go
from hermes_async.chat.pieces import Piece, TurnEnded
from hermes_async.cli import exits
from hermes_async.cli.terminal.board import Board
from hermes_async.cli.terminal.mute import Mute, Parent
from hermes_async.cli.terminal.slash import Slash
from hermes_async.cli.terminal.voice import Voice
from hermes_async.core.ending import end
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.domain.errors import ConfigError, HermesError, UserError
from hermes_async.domain.task import TaskStatus
from hermes_async.settings import Settings

#: Seconds after which somebody who waits for tasks looks without having heard anything.
_LOOK_EVERY: Final = 1.0
_LIVE: Final = (TaskStatus.QUEUED, TaskStatus.RUNNING)
_DO_WITH_SLASH: Final = "there is no model to talk with ({}); /help shows what can be done without one"
_UNHEARD: Final = "nobody can answer that without a model; /help shows what can be done"


class Talk:
    """One chat; `taken` says whether all that was asked of it could be done.

    Args:
        session: the parent's.
        slash: what lines with a slash mean.
        board: the tasks that run.
        voice: who tells.
    """

    def __init__(self, session: Session, slash: Slash, board: Board, voice: Voice) -> None:
        self.voice = voice
        self.code = exits.OK
        self._session = session
        self._slash = slash
        self._board = board
        self._ready = asyncio.Event()
        #: What was said before the parent was ready.
        self._early: list[str] = []
        self._parent: Parent | None = None

    @property
    def parent(self) -> Parent | None:
        """Who is talked with; None: it is not ready yet."""
        return self._parent

    def meet(self, parent: Parent) -> None:
        """Begin to talk with a parent; what was said before is said now."""
        self._parent = self._slash.parent = parent
        self._ready.set()
        early, self._early = self._early, []
        for text in early:
            self._say(text)

    async def ready(self) -> None:
        """Wait until there is somebody to talk with."""
        await self._ready.wait()

    async def take(self, said: str) -> bool:
        """Do what a line says, and return whether the chat goes on."""
        text = said.strip()
        if not text.startswith("/"):
            if text:
                self._say(text)
            return True
        try:
            reply = await self._slash.obey(text)
        except HermesError as error:
            self._fault(error)
            return True
        self.voice.reply(text, reply)
        return not reply.leaves

    def interrupt(self) -> bool:
        """Stop the parent in the middle of an answer; False: it is silent."""
        return self._parent is not None and self._parent.interrupt()

    def piece(self, piece: Piece) -> None:
        """Pass a piece of a turn on to the voice."""
        self.voice.piece(piece)
        if isinstance(piece, TurnEnded):
            self._board.touch()

    async def silence(self) -> None:
        """Wait until the parent has nothing more to say just now."""
        await self.ready()
        while self._parent is not None and self._parent.is_busy:
            await self._board.moved(_LOOK_EVERY)

    async def settled(self, at_most: float | None) -> int:
        """Wait until every task has ended and its news were told, and return the exit code.

        Args:
            at_most: seconds; None: as long as it takes.
        """
        await self.silence()
        with anyio.move_on_after(at_most):
            while not await self._is_settled():
                await self._board.moved(_LOOK_EVERY)
        await self.silence()
        return await self._outcome()

    async def unfinished(self) -> int:
        """Return how many tasks of the session have not ended."""
        counts = [
            len(await self._session.tasks(status=status)) for status in (*_LIVE, TaskStatus.INPUT_REQUIRED)
        ]
        return sum(counts)

    async def _is_settled(self) -> bool:
        parent = self._parent
        if parent is None or parent.is_busy:
            return False
        if parent.has_failed:
            return True
        for status in _LIVE:
            if await self._session.tasks(status=status, limit=1):
                return False
        return not await self._session.unread()

    async def _outcome(self) -> int:
        if self._parent is not None and self._parent.has_failed:
            return exits.FAILED
        left = await self.unfinished()
        if left:
            asks = await self._session.tasks(status=TaskStatus.INPUT_REQUIRED, limit=1)
            why = "one of them waits for an answer" if asks else "come back for what comes of them"
            self.voice.note(f"{left} task{'s have' if left > 1 else ' has'} not ended: {why}")
        return self.code or (exits.UNFINISHED if left else exits.OK)

    def _say(self, text: str) -> None:
        if self._parent is None:
            self._early.append(text)
            return
        try:
            self._parent.say(text)
        except UserError as error:
            self._fault(error, text)

    def _fault(self, error: HermesError, said: str = "") -> None:
        self.voice.fault(error, said)
        self.code = exits.code_of(error)


@asynccontextmanager
async def parent_of(hermes: Hermes, settings: Settings, session: Session, talk: Talk) -> AsyncIterator[None]:
    """Have the session's parent talk for as long as the context lasts: with its model, if that can be used.

    Raises:
        UserError: another chat has the session, or its conversation cannot be taken up.
    """
    async with AsyncExitStack() as stack:
        try:
            chat = await anyio.to_thread.run_sync(_with_model, hermes, settings, session)
        except ConfigError as error:
            file = file_of(settings.state_dir / "chats", session.id)
            stack.callback(let_go, file, hold(file, session.id))
            talk.voice.note(_DO_WITH_SLASH.format(error))
            talk.meet(await stack.enter_async_context(Mute(session, _UNHEARD, talk.voice.news)))
        else:
            passing = asyncio.create_task(_pass_on(chat.pieces(), talk.piece), name="hermes-chat-pieces")
            stack.push_async_callback(end, passing)
            await stack.enter_async_context(chat)
            _tell_where_we_were(chat, talk.voice)
            talk.meet(chat)
        yield


def _with_model(hermes: Hermes, settings: Settings, session: Session) -> Any:
    """Return the parent with its model; what that imports takes seconds, so this runs on a thread.

    Raises:
        ConfigError: it has none, or that cannot be used here.
    """
    if session.parent is None:
        raise ConfigError("agents.yaml declares no conversation")
    spec = hermes.registry.config.agent(session.parent)
    if spec.model is None:
        raise ConfigError(f"agents.yaml gives {session.parent} no `model`")
    check_model(spec.model, spec.base_url, spec.api_key)
    make = importlib.import_module("hermes_async.chat.parent").ChatParent
    where = {"session_id": session.id, "folder": settings.state_dir / "chats"}
    return make(hermes, session.parent, tools=settings.tool_names, **where)


async def _pass_on(pieces: AsyncIterator[Piece], tell: Callable[[Piece], None]) -> None:
    async for piece in pieces:
        tell(piece)


def _tell_where_we_were(chat: Any, voice: Voice) -> None:
    if chat.last_answer:
        voice.note(f"… {chat.last_answer[-400:]}")
    if chat.unanswered:
        voice.note(f"not answered yet: {chat.unanswered[:200]} (/again asks again)")
