"""Slash commands over the real core: with them a person does what a model does with its tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from hermes_async.cli.terminal.board import Board, short
from hermes_async.cli.terminal.screen import SlashCompleter
from hermes_async.cli.terminal.slash import COMMANDS, Reply, Slash
from hermes_async.core.context import TaskContext
from hermes_async.core.hermes import Hermes
from hermes_async.core.session import Session
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec, SubagentSpec
from hermes_async.domain.errors import HermesError, InvalidInput, NotTaken, UnknownTask
from hermes_async.testing import LocalHermes
from tests.support.servers import wait_until_async

pytestmark = pytest.mark.anyio


@subagent
async def echo(ctx: TaskContext, text: str = "") -> str:
    """Give back what it was given."""
    return text


@subagent
async def rest(ctx: TaskContext, text: str = "") -> str:
    """Work for ever."""
    ctx.progress(30, "resting")
    ctx.partial("half", name="draft")
    await asyncio.Event().wait()
    return ""


@subagent
async def asks(ctx: TaskContext, text: str = "") -> str:
    """Ask for a number, then tell what it was told besides."""
    number = await ctx.ask("how many?", schema=int)
    return f"{number} {[each.text for each in await ctx.messages()]}"


@dataclass
class Desk:
    session: Session
    board: Board
    slash: Slash

    async def says(self, line: str) -> str:
        return "\n".join((await self.slash.obey(line)).lines)

    async def start(self, line: str) -> str:
        """Start a task and return its short id."""
        return (await self.says(line)).split()[1]


@pytest.fixture
async def desk(anyio_backend: str) -> AsyncIterator[Desk]:
    names = ("echo", "rest", "asks", "tasks")
    subagents = tuple(SubagentSpec(id=name, agent="echo" if name == "tasks" else name) for name in names)
    config = AgentsConfig(agents={"parent": AgentSpec(type="conversational", subagents=subagents)})
    async with LocalHermes(echo, rest, asks, config=config) as hermes:
        yield await desk_of(hermes)


async def desk_of(hermes: Hermes) -> Desk:
    session = hermes.session("chat", "parent")
    board = Board(session, lambda item: None)
    await board.open()
    return Desk(session, board, Slash(session, board, hermes.registry))


async def test_a_subagent_is_started_by_its_name(desk: Desk) -> None:
    id = await desk.start("/echo how are  you?")
    await wait_until_async(lambda: desk.session.unread())
    assert (await desk.says(f"/show {id}")).endswith("how are  you?")
    assert "completed      echo" in await desk.says("/tasks")


async def test_one_that_is_called_like_a_command_too(desk: Desk) -> None:
    assert await desk.says("/tasks") == "there are no tasks yet"
    assert (await desk.says("/delegate tasks hello")).endswith("of tasks")
    with pytest.raises(InvalidInput, match="takes a subagent: echo, rest, asks, tasks"):
        await desk.says("/delegate")


async def test_a_task_is_watched_and_stopped(desk: Desk) -> None:
    id = await desk.start("/rest")
    await wait_until_async(lambda: any(row.percent == 30 for row in desk.board.rows.values()))
    shown = await desk.says(f"/show {id.partition('-')[2]}")
    assert "progress: 30% resting" in shown
    assert "draft: half" in shown
    assert await desk.says(f"/cancel {id}") in (f"asked {id} to stop", f"{id} is cancelled")
    await wait_until_async(lambda: not desk.board.rows)
    assert await desk.says(f"/cancel {id}") == f"{id} had ended already: cancelled"


async def test_a_question_is_answered(desk: Desk) -> None:
    id = await desk.start("/asks")
    await wait_until_async(lambda: any(row.question == "how many?" for row in desk.board.rows.values()))
    with pytest.raises(HermesError):
        await desk.says(f"/answer {id} many")
    assert await desk.says(f"/send {id} 'not too many'") == f"sent to {id}"
    assert await desk.says(f"/answer {id} 3") == f"answered {id}"
    await wait_until_async(lambda: not desk.board.rows)
    assert (await desk.says(f"/show {id}")).endswith("3 ['not too many']")
    with pytest.raises(NotTaken):
        await desk.says(f"/send {id} too late")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/ech hello", "did you mean 'echo'"),
        ("/zzzzzz", "/help shows"),
        ("/nope", "there is no /nope; /help shows"),
        ("/helo", "did you mean 'help'"),
        ("/show", "/show takes the id of a task"),
        ("/cancel --force", "/cancel takes the id of a task"),
        ("/answer t00-x", "that is /answer ID VALUE"),
        ("/again", "nothing to ask again"),
    ],
)
async def test_what_is_wrong_is_a_sentence(desk: Desk, line: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        await desk.says(line)


async def test_ids_that_are_not_there_or_not_clear(desk: Desk) -> None:
    with pytest.raises(UnknownTask):
        await desk.says("/show t00-nothing")
    first, _ = await desk.start("/rest"), await desk.start("/rest")
    with pytest.raises(UnknownTask, match="2 tasks begin with t"):
        await desk.says(f"/show {first[:4]}")


async def test_help_names_all_and_quit_leaves(desk: Desk) -> None:
    shown = await desk.says("/help")
    assert all(f"/{name}" in shown for name in (*COMMANDS, "echo", "rest", "asks"))
    assert "Give back what it was given." in shown
    assert (await desk.slash.obey("/quit")).leaves
    assert isinstance(await desk.slash.obey("/new"), Reply)


async def test_tab_knows_commands_subagents_and_tasks(desk: Desk) -> None:
    id = await desk.start("/asks")
    await wait_until_async(lambda: any(row.question for row in desk.board.rows.values()))
    other = await desk.start("/rest")
    await wait_until_async(lambda: len(desk.board.rows) == 2)
    completer = SlashCompleter(desk.slash, desk.board)

    def after(text: str) -> list[str]:
        found = completer.get_completions(Document(text), CompleteEvent())
        return [each.text.strip() for each in found]

    assert after("/a") == ["asks", "answer", "again"]
    assert after("/answer ") == [id]
    assert sorted(after("/cancel t")) == sorted([id, other])
    assert after("/delegate r") == ["rest"]
    assert after("/send x y") == after("hello") == after("/echo ") == after("/help ") == []
    assert short(None) == ""
