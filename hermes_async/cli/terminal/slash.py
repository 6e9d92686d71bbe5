"""What a line that begins with a slash does: subagents and tasks by hand, with or without a model."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hermes_async.cli.ids import only
from hermes_async.cli.terminal.board import Board, short
from hermes_async.cli.terminal.mute import Parent
from hermes_async.cli.words import ago, line, progress, shown
from hermes_async.core.handle import TaskHandle
from hermes_async.core.registry import Registry
from hermes_async.core.session import Session
from hermes_async.domain.errors import InvalidInput, UserError, did_you_mean
from hermes_async.domain.task import Task

#: Tasks that are listed, and that an id is looked for among.
_LISTED, _KNOWN = 20, 200


@dataclass(frozen=True)
class Reply:
    """What a command answers: lines for a person, and values for a program."""

    lines: Sequence[str] = ()
    value: dict[str, Any] = field(default_factory=dict)
    #: The chat is to be left.
    leaves: bool = False


@dataclass(frozen=True)
class Command:
    """A command of our own; a subagent of the same name is reached with /delegate."""

    takes: str
    help: str


COMMANDS: Final[dict[str, Command]] = {
    "tasks": Command("", "list the tasks of this session, newest first"),
    "show": Command("ID", "show how a task stands, and what came of it"),
    "cancel": Command("ID [--force]", "stop a task and everything below it"),
    "answer": Command("ID VALUE", "answer what a task asks"),
    "send": Command("ID TEXT", "say something to a running task"),
    "delegate": Command("SUBAGENT TEXT", "start a task; the same as /SUBAGENT TEXT"),
    "again": Command("", "ask the model again what it has not answered"),
    "new": Command("", "forget what was said; tasks go on"),
    "help": Command("", "show this"),
    "quit": Command("", "leave; tasks go on (Ctrl-D does the same)"),
}


class Slash:
    """Obeys commands in one session."""

    def __init__(self, session: Session, board: Board, registry: Registry) -> None:
        self.subagents = subagents_of(session, registry)
        #: Who is talked with, once that is known.
        self.parent: Parent | None = None
        self._session = session
        self._board = board
        self._registry = registry
        self._own: dict[str, Callable[[str], Awaitable[Reply]]] = {
            name: getattr(self, f"_{name}") for name in COMMANDS
        }

    @property
    def names(self) -> Sequence[str]:
        """Every name that may follow a slash."""
        return list(dict.fromkeys((*self.subagents, *COMMANDS)))

    async def obey(self, said: str) -> Reply:
        """Do what a line says.

        Raises:
            UserError: it cannot be done; the message says why.
            ServiceError: a server does not answer.
        """
        name, _, rest = said.removeprefix("/").partition(" ")
        if name in self._own:
            return await self._own[name](rest.strip())
        if name in self.subagents:
            return await self._start(name, rest.strip())
        hint = did_you_mean(name, [each for each in self.names if each != "new"])  # what it forgets is gone
        hint = hint or "; /help shows what there is"
        raise InvalidInput(f"there is no /{line(name, 40)}{hint}")

    async def _start(self, subagent: str, text: str) -> Reply:
        handle = await self._session.submit(subagent, text or {})
        told = f"started {short(handle.id)} of {subagent}"
        return Reply([told], {"task_id": handle.id, "subagent": subagent})

    async def _delegate(self, rest: str) -> Reply:
        name, _, text = rest.partition(" ")
        if not name:
            raise InvalidInput(f"/delegate takes a subagent: {', '.join(self.subagents) or 'there is none'}")
        return await self._start(name, text.strip())

    async def _tasks(self, rest: str) -> Reply:
        tasks = await self._session.tasks(limit=_LISTED)
        lines = [_listed(task) for task in tasks] or ["there are no tasks yet"]
        return Reply(lines, {"tasks": [task.as_json() for task in tasks]})

    async def _show(self, rest: str) -> Reply:
        task = await (await self._handle(rest, "/show")).task()
        return Reply(_shown(task), {"task": task.as_json()})

    async def _cancel(self, rest: str) -> Reply:
        words = rest.split()
        force = "--force" in words
        handle = await self._handle(" ".join(word for word in words if word != "--force"), "/cancel")
        asked = await handle.cancel(force=force)
        task = await handle.task()
        over = f"{short(task.id)} {'is' if asked else 'had ended already:'} {task.status}"
        told = over if task.status.is_terminal else f"asked {short(task.id)} to stop"
        return Reply([told], {"task_id": task.id, "asked": asked, "status": task.status.value})

    async def _answer(self, rest: str) -> Reply:
        handle, text = await self._addressed(rest, "/answer ID VALUE")
        question = (await handle.task()).question
        value = text if question is None else question.meant(text)
        await handle.answer(value)
        return Reply([f"answered {short(handle.id)}"], {"task_id": handle.id, "answer": value})

    async def _send(self, rest: str) -> Reply:
        handle, text = await self._addressed(rest, "/send ID TEXT")
        seq = await handle.send(text)
        return Reply([f"sent to {short(handle.id)}"], {"task_id": handle.id, "seq": seq})

    async def _again(self, rest: str) -> Reply:
        if self.parent is None or self.parent.again() is None:
            raise InvalidInput("there is nothing to ask again")
        return Reply([], {"again": True})

    async def _new(self, rest: str) -> Reply:
        if self.parent is not None:
            await self.parent.forget()
        return Reply(["a new conversation; the tasks are still there"], {"new": True})

    async def _help(self, rest: str) -> Reply:
        rows = [(f"/{name} TEXT", self._described(name)) for name in self.subagents]
        rows += [(f"/{name} {command.takes}".rstrip(), command.help) for name, command in COMMANDS.items()]
        width = max(len(left) for left, _ in rows)
        value = {"subagents": [*self.subagents], "commands": list(COMMANDS)}
        return Reply([f"{left:<{width}}  {right}".rstrip() for left, right in rows], value)

    def _described(self, name: str) -> str:
        try:
            return line(self._registry.resolve(name, self._session.parent).description, 60)
        except UserError as error:
            return f"cannot run: {line(str(error), 200)}"

    async def _quit(self, rest: str) -> Reply:
        return Reply(leaves=True, value={"left": True})

    async def _addressed(self, rest: str, usage: str) -> tuple[TaskHandle[Any], str]:
        prefix, _, text = rest.partition(" ")
        if not text.strip():
            raise InvalidInput(f"that is {usage}")
        return await self._handle(prefix, usage), _unquoted(text.strip())

    async def _handle(self, prefix: str, usage: str) -> TaskHandle[Any]:
        """Return the handle of the one task whose id begins so."""
        if not prefix:
            raise InvalidInput(f"{usage.partition(' ')[0]} takes the id of a task; /tasks lists them")
        one = only(prefix, self._board.rows) or only(
            prefix, [task.id for task in await self._session.tasks(limit=_KNOWN)]
        )
        return await self._session.handle(one or prefix)


def _unquoted(text: str) -> str:
    """Return what stands between quotes, for who is used to a shell."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 and text[0] == text[-1] and text[0] in "'\"" else text


def subagents_of(session: Session, registry: Registry) -> Sequence[str]:
    """Return the names under which a session may dispatch, importing nothing."""
    parent = registry.config.agents.get(session.parent or "")
    return [each.id for each in parent.subagents] if parent and parent.subagents else list(registry)


def _state(task: Task) -> str:
    if task.question is not None:
        return f"asks: {line(task.question.question, 200)}"
    if task.error is not None:
        return f"{task.reason}: {line(f'{task.error.type}: {task.error.message}', 200)}"
    return line(task.output, 200) if task.status.is_terminal and task.output is not None else ""


def _listed(task: Task) -> str:
    said = _state(task) or progress(task.progress)
    return f"{short(task.id)}  {task.status:<14} {task.birth.subagent}  {said}".rstrip()


def _shown(task: Task) -> list[str]:
    lines = [
        f"{task.id}  {task.status}, {task.birth.subagent}, attempt {task.attempt}, {ago(task.created_at)}",
        *([f"progress: {progress(task.progress)}"] if task.progress else []),
        *(f"{name}: {shown(value)}" for name, value in task.partials.items()),
        *([_state(task)] if task.question or task.error else []),
    ]
    return lines if task.output is None else [*lines, *shown(task.output).splitlines()]
