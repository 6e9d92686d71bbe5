"""What a newcomer would ask next, said before the question."""

from __future__ import annotations

import shlex
from typing import Final

from hermes_async.adapters.embedded_redis import running_url
from hermes_async.cli.shell import Shell
from hermes_async.settings import Settings

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


def hint_if_nothing_runs(shell: Shell, settings: Settings) -> None:
    """Say that a task will wait, when nobody has started the project."""
    own_server = settings.agents.task_queue is not None
    if not own_server and running_url(settings.state_dir / "redis") is None:
        shell.tell(f"nothing runs here yet: the task waits for `{command(shell, 'up')}`")
