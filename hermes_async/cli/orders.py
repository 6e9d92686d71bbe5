"""What a command line orders: a subagent with an input, in a session; and the answer about its end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import JsonValue

from hermes_async.cli import exits
from hermes_async.cli.following import until_ctrl_c, wait_here
from hermes_async.cli.hints import hint_if_nobody_works
from hermes_async.cli.shell import Shell
from hermes_async.cli.views import View, view_for
from hermes_async.cli.words import ending, harmless, shown
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes
from hermes_async.domain.errors import InvalidInput
from hermes_async.domain.task import Task, TaskStatus


def read_input(
    ctx: click.Context, option: click.Parameter, text: str | None
) -> str | Mapping[str, JsonValue]:
    """Return what `--input` means: its text, `@file`, `-` for stdin, or no arguments at all."""
    return {} if text is None else read_text(text, "--input")


def read_text(text: str, what: str) -> str:
    """Return what an argument means: its text, `@file`, or `-` for stdin; `what` names it in messages."""
    if text == "-":
        return sys.stdin.read()
    return _file(Path(text[1:]), what) if text.startswith("@") else text


def _file(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInput(
            f"{what} @{path}: {reason}; name a text file, or write `-` and pipe a text that begins with @"
        ) from None


@dataclass(frozen=True)
class Order:
    """One task to be."""

    parent: str | None
    subagent: str
    input: str | Mapping[str, JsonValue]
    session: str | None = None
    priority: int | None = None
    idempotency_key: str | None = None

    def is_async(self, hermes: Hermes) -> bool:
        """Tell what agents.yaml says: whether the caller goes on at once."""
        parent = hermes.session(self.session, self.parent).parent  # refuses an unknown one
        return hermes.registry.resolve(self.subagent, parent).spec.async_

    async def place(self, hermes: Hermes) -> TaskHandle[Any]:
        """Dispatch the task."""
        session = hermes.session(self.session, self.parent)
        return await session.submit(
            self.subagent, self.input, priority=self.priority, idempotency_key=self.idempotency_key
        )


async def await_order(hermes: Hermes, shell: Shell, order: Order) -> int:
    """Dispatch, wait, print the result and return the task's fate; Ctrl-C asks the task to stop."""
    handle, view = None, view_for(shell, aside=True)
    with until_ctrl_c():
        handle = await order.place(hermes)
        await hint_if_nobody_works(shell, hermes, handle)
        return tell_task(shell, await wait_here(handle, view), view)
    if handle is not None:
        await handle.cancel()
        shell.tell(f"asked task {handle.id} to stop")
    return exits.INTERRUPTED


def tell_task(shell: Shell, task: Task, view: View | None = None) -> int:
    """Print the result of a task that has ended, or why there is none; return its fate."""
    if shell.json:
        shell.answer(task.as_json())
    elif task.status is TaskStatus.COMPLETED:
        print_output(shell, task.output)
    elif view is None or not view.tells_end:
        shell.tell(f"hermes-async: {ending(task)}")
    return exits.fate(task.status)


def print_output(shell: Shell, output: Any) -> None:
    """Print a result: exactly in a pipe, harmlessly on a terminal."""
    if shell.json:
        shell.answer(output)
    elif output is not None:
        click.echo(_drawn(output) if shell.on_terminal else shown(output))


def _drawn(output: Any) -> str:
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
    return harmless(text)
