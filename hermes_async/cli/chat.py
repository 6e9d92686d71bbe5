"""`hermes-async chat`: talk with a parent that delegates, on a terminal or in a pipe."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import click

from hermes_async.cli import exits
from hermes_async.cli.bridge import settings_of, with_hermes
from hermes_async.cli.following import until_ctrl_c
from hermes_async.cli.group import Command
from hermes_async.cli.hints import FIRST_FILE, command
from hermes_async.cli.shell import Shell
from hermes_async.cli.terminal.board import Board
from hermes_async.cli.terminal.screen import Screen
from hermes_async.cli.terminal.slash import Slash
from hermes_async.cli.terminal.staff import Staff
from hermes_async.cli.terminal.stdin import stdin_lines
from hermes_async.cli.terminal.talk import Talk, parent_of
from hermes_async.cli.terminal.voice import JsonLines, Plain, Voice
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.domain.errors import ConfigError, HermesError, UnknownAgent
from hermes_async.settings import Settings

CODES = (
    "Exit code: 0 all was answered and every task has ended, 1 the model does not answer, 75 tasks have not "
    "ended; 2 wrong usage, 69 no server. On a terminal it is 0."
)


@dataclass(frozen=True)
class Wish:
    """What the command line says."""

    shell: Shell
    settings: Settings
    parent: str | None
    session: str | None
    messages: Sequence[str]
    wait: float | None
    up: bool | None

    @property
    def is_drawn(self) -> bool:
        """Whether a person sits at a terminal."""
        has_keys = sys.stdin is not None and sys.stdin.isatty()
        return self.shell.on_terminal and has_keys and not self.messages

    @property
    def may_start(self) -> bool:
        """Whether workers may be started here: with servers of one's own only if that is said."""
        return self.settings.agents.task_queue is None if self.up is None else self.up


@click.command(
    cls=Command,
    epilog=CODES,
    example=["chat", "chat parent_agent --session chat-7", 'chat --message "look into AI chips" --wait 300'],
)
@click.argument("parent", required=False)
@click.option("--session", help="Go on with this session; a new one by default.")
@click.option("--message", "messages", multiple=True, metavar="TEXT", help="Say this and leave; repeatable.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="In a pipe, or with --message: wait so long for tasks; by default until all have ended.",
)
@click.option(
    "--up/--no-up",
    default=None,
    help="Start workers here if there are none; by default without servers only.",
)
@click.pass_obj
def chat(
    shell: Shell,
    parent: str | None,
    session: str | None,
    messages: Sequence[str],
    wait: float | None,
    up: bool | None,
) -> int:
    """Talk with PARENT, which delegates to its subagents and tells what comes of it.

    A line such as `/research AI chips` starts a task by hand; /help shows what else there is. That works
    without a model, too. In a pipe every line of stdin is a message. Who leaves finds everything again with
    --session.
    """
    settings = settings_of(shell, starts=True)
    return with_hermes(settings, _chat, Wish(shell, settings, parent, session, messages, wait, up))


async def _chat(hermes: Hermes, wish: Wish) -> int:
    session = hermes.session(wish.session, _parent(hermes, wish.parent))
    return await (_drawn if wish.is_drawn else _plain)(hermes, wish, session)


def _parent(hermes: Hermes, named: str | None) -> str | None:
    """Return who is talked with: the one that is named, or the only conversation that there is."""
    agents = hermes.registry.config.agents
    if named is not None:
        if hermes.registry.config.agent(named).type != "conversational":
            raise UnknownAgent(f"{named} is no conversation; {_choice(_conversations(hermes))}")
        return named
    found = _conversations(hermes)
    if len(found) > 1:
        raise UnknownAgent(f"with whom? {_choice(found)}")
    if not found and not list(hermes.registry):
        where = "agents.yaml has no agents" if agents else "there is no agents.yaml here"
        raise ConfigError(f"{where}. Begin with these two files:\n\n{FIRST_FILE}")
    return found[0] if found else None


def _conversations(hermes: Hermes) -> list[str]:
    return [name for name, spec in hermes.registry.config.agents.items() if spec.type == "conversational"]


def _choice(names: Sequence[str]) -> str:
    return f"name one of: {', '.join(names)}" if names else "agents.yaml declares none"


async def _plain(hermes: Hermes, wish: Wish, session: Session) -> int:
    """Talk in a pipe: one message after the other, then wait for the tasks."""
    board = Board(session, lambda item: voice.event(item))
    voice: Voice = JsonLines() if wish.shell.json else Plain(board.name_of)
    talk = Talk(session, Slash(session, board, hermes.registry), board, voice)
    status = voice.note if wish.shell.json else _ignore
    async with (
        _at_work(hermes, wish, board, voice, status) as staff,
        parent_of(hermes, wish.settings, session, talk),
    ):
        staff.begin()
        with until_ctrl_c():
            async for said in _given(wish.messages) if wish.messages else stdin_lines():
                goes_on = await talk.take(said)
                await talk.silence()
                if not goes_on:
                    break
            return await talk.settled(wish.wait)
        return exits.INTERRUPTED


async def _given(messages: Sequence[str]) -> AsyncIterator[str]:
    for each in messages:
        yield each


def _ignore(status: str) -> None:
    """Nobody watches."""


async def _drawn(hermes: Hermes, wish: Wish, session: Session) -> int:
    """Talk on a terminal; what takes its time is begun while the first line can be typed."""
    board = Board(session, lambda item: screen.event(item))
    slash = Slash(session, board, hermes.registry)
    screen = Screen(board, slash, _typed(wish.settings), lambda: talk.interrupt())
    talk = Talk(session, slash, board, screen)
    with screen.shown(), _signals(screen):
        _greet(session, slash, screen)
        async with _at_work(hermes, wish, board, screen, screen.show_status) as staff:
            left = asyncio.Event()
            talking = asyncio.create_task(_talks(hermes, wish, session, talk, staff, left))
            talking.add_done_callback(lambda _: screen.leave())
            async for said in screen.lines():
                if not await talk.take(said):
                    break
            left.set()
            await talking
            await _say_goodbye(wish, session, talk, staff)
        await screen.flush()
    return exits.OK


async def _talks(
    hermes: Hermes, wish: Wish, session: Session, talk: Talk, staff: Staff, left: asyncio.Event
) -> None:
    async with parent_of(hermes, wish.settings, session, talk):
        staff.begin()
        await left.wait()


@asynccontextmanager
async def _at_work(
    hermes: Hermes, wish: Wish, board: Board, voice: Voice, on_status: Callable[[str], None]
) -> AsyncIterator[Staff]:
    """Keep the board, and have somebody work, for as long as the context lasts."""
    staff = Staff(hermes, wish.settings, may_start=wish.may_start, tell=voice.note, on_status=on_status)
    await board.open()
    working = asyncio.create_task(staff.run(), name="hermes-chat-staff")
    try:
        yield staff
    finally:
        staff.stop()
        await working


def _typed(settings: Settings) -> str:
    """Return the file in which a terminal keeps what was typed."""
    folder = settings.state_dir / "chats"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder / ".typed")


def _greet(session: Session, slash: Slash, screen: Screen) -> None:
    subagents = ", ".join(slash.subagents) or "none yet"
    screen.note(f"{session.parent or 'nobody'} in session {session.id}; subagents: {subagents}")
    screen.note("/help shows what can be typed, Tab completes, Esc interrupts, Ctrl-D leaves")


async def _say_goodbye(wish: Wish, session: Session, talk: Talk, staff: Staff) -> None:
    """Say what goes on, and how to come back."""
    left = 0
    with suppress(HermesError):
        left = await talk.unfinished()
    named = f"{session.parent} " if session.parent else ""
    back = command(wish.shell, f"chat {named}--session {shlex.quote(session.id)}")
    until = " when workers are here again" if staff.works_here else ""
    goes_on = f"{left} task{'s go' if left > 1 else ' goes'} on{until}; " if left else ""
    talk.voice.note(f"{goes_on}come back with: {back}")


@contextmanager
def _signals(screen: Screen) -> Iterator[None]:
    """Leave in an orderly way when the terminal is closed, or the process told to go."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, screen.leave)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
