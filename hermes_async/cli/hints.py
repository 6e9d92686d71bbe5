"""What a newcomer would ask next, said before the question."""

from __future__ import annotations

import shlex
from typing import Any, Final

from hermes_async.cli.shell import Shell
from hermes_async.core.handle import TaskHandle
from hermes_async.core.hermes import Hermes

FIRST_FILE: Final = """\
# agents.yaml
agents:
  parent_agent:
    type: conversational
    subagents:
      - id: research
        timeout: 120
  research_agent:
    run: "my_agents:research"

# my_agents.py
from hermes_async import TaskContext, subagent

@subagent
async def research(ctx: TaskContext, topic: str) -> str:
    ctx.progress(50, "half way")
    return f"all about {topic}"
"""


def command(shell: Shell, words: str) -> str:
    """Return a command line for the same project."""
    config = f" --config {shlex.quote(str(shell.config))}" if shell.config else ""
    return f"hermes-async {words}{config}"


def hint_after_create(shell: Shell, task_id: str) -> None:
    """Say how to watch a task."""
    shell.tell(f"watch it: {command(shell, f'task watch {task_id} --follow')}")


async def hint_if_nobody_works(shell: Shell, hermes: Hermes, handle: TaskHandle[Any]) -> None:
    """Say that a task waits, when there is no worker that could take it."""
    if await hermes.feed.lookout.finds_nobody(handle.id):
        shell.tell(f"no worker is running; the task waits for `{command(shell, 'up')}`")
