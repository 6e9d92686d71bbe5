"""The main job, from nothing: a chat that delegates, goes on answering, and hears of every result.

Starts what `hermes-async up` starts (an embedded Redis, a worker of each lane, the relay) in a folder of its
own, plays a scripted conversation against it, and prints what was measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from examples.screen import Screen
from examples.stage import relay_token, running_up
from hermes_async import Delivery, Gap, Session, connect
from hermes_async.bootstrap import read_settings
from hermes_async.core.hermes import Hermes
from hermes_async.relay.client import RelayClient
from hermes_async.settings import Settings

#: What the user types, with the pause before it in seconds.
SCRIPT = [
    (0.0, "survey", "celery"),
    (0.1, "research", "How does Celery acknowledge messages late?"),
    (0.1, "survey", "kombu"),
    (0.1, "survey", "pydantic"),
    (0.1, "research", "What happens to a message when its worker is killed?"),
    (0.1, "survey", "redis"),
]
SMALL_TALK = [
    ("are you still there?", "I am; {done} of {all} tasks have reported back"),
    ("what is 6 times 7?", "42"),
    ("and how far are they?", "{done} of {all} are done"),
]
#: Seconds between two looks at the clock, by which pauses of the parent are noticed.
TICK = 0.005


@dataclass
class Figures:
    """What the run measures, in seconds."""

    handles: list[float] = field(default_factory=list)
    dispatched: dict[str, float] = field(default_factory=dict)
    first_progress: dict[str, float] = field(default_factory=dict)
    answers: list[float] = field(default_factory=list)
    longest_pause: float = 0.0
    #: The `seq` of each result, as they came.
    results: list[int] = field(default_factory=list)
    failures: int = 0

    @property
    def all_well(self) -> bool:
        """Every task has succeeded, and was heard of once and in order."""
        once_in_order = self.results == sorted(set(self.results))
        return once_in_order and not self.failures and len(self.results) == len(self.dispatched)


class Parent:
    """A chat agent, reduced to what matters here: it delegates, answers, watches and reads its inbox."""

    def __init__(self, session: Session, screen: Screen, figures: Figures) -> None:
        self.session = session
        self.screen = screen
        self.figures = figures

    async def converse(self) -> None:
        """Take the user's orders, and small talk in between."""
        for pause, subagent, text in SCRIPT:
            await asyncio.sleep(pause)
            await self.delegate(subagent, text)
        for question, answer in SMALL_TALK:
            await asyncio.sleep(0.3)
            self.answer(question, answer)

    async def delegate(self, subagent: str, text: str) -> None:
        """Give an order to a subagent; the handle is there in milliseconds."""
        self.screen.user(f"/{subagent} {text}")
        asked = time.perf_counter()
        handle = await self.session.submit(subagent, text)
        self.figures.handles.append(time.perf_counter() - asked)
        self.figures.dispatched[handle.id] = asked
        self.screen.task(handle.id, f"{subagent} {text}")
        self.screen.parent(f"on it: {handle.id}")

    def answer(self, question: str, answer: str) -> None:
        """Answer at once, whatever the subagents are doing."""
        asked = time.perf_counter()
        self.screen.user(question)
        self.screen.parent(answer.format(done=len(self.figures.results), all=len(self.figures.dispatched)))
        self.figures.answers.append(time.perf_counter() - asked)

    async def watch(self, client: RelayClient) -> None:
        """Show progress as it comes over Socket.IO."""
        async for event in client.follow(session=self.session.id):
            if isinstance(event, Gap) or event.type != "task.progress" or event.task_id is None:
                continue
            self.figures.first_progress.setdefault(event.task_id, time.perf_counter())
            self.screen.progress(event.task_id, event.data.progress_percent, event.data.message)

    async def read_inbox(self) -> None:
        """Hear of every result once, in order, and acknowledge it."""
        async for delivery in self.session.inbox():
            self.screen.end(delivery.event.task_id or "")
            self.screen.result(delivery.event.agent or "", _told(delivery))
            self.figures.results.append(delivery.event.seq)
            self.figures.failures += delivery.event.type != "task.completed"
            await delivery.ack()
            if len(self.figures.results) == len(SCRIPT):
                return


def _told(delivery: Delivery) -> str:
    """Return what the parent says about a result."""
    data: Any = delivery.event.data
    if delivery.event.type != "task.completed":
        return f"did not work: {data.error.message}" if hasattr(data, "error") else delivery.event.type
    return str(data.output.get("summary") or data.output.get("answer"))


async def _feel_the_pulse(figures: Figures) -> None:
    """Notice every pause of the parent's event loop."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        figures.longest_pause = max(figures.longest_pause, time.perf_counter() - before - TICK)


async def _play(hermes: Hermes, settings: Settings, screen: Screen) -> Figures:
    figures = Figures()
    session = hermes.session(parent="parent_agent")
    parent = Parent(session, screen, figures)
    token = relay_token(settings, session.id)
    async with RelayClient(settings.relay_url, token) as client, asyncio.TaskGroup() as group:
        aside = [group.create_task(parent.watch(client)), group.create_task(_feel_the_pulse(figures))]
        group.create_task(parent.converse())
        await group.create_task(parent.read_inbox())
        for task in aside:
            task.cancel()
    return figures


def _table(figures: Figures) -> Iterator[tuple[str, str]]:
    first = [
        figures.first_progress[t] - at for t, at in figures.dispatched.items() if t in figures.first_progress
    ]
    verdict = "each once and in order" if figures.all_well else "NOT AS PROMISED"
    yield "handle latency, median / worst", f"{_ms(median(figures.handles))} / {_ms(max(figures.handles))}"
    yield "dispatch to first progress, median", _ms(median(first)) if first else "none seen"
    yield "parent's longest pause", _ms(figures.longest_pause)
    yield "small talk answered within", _ms(max(figures.answers))
    yield "results", f"{len(figures.results)} of {len(SCRIPT)}, {verdict}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Keep the demo's state apart from a project's."""
    with tempfile.TemporaryDirectory(prefix="hermes-demo-") as folder:
        os.environ["HERMES_STATE_DIR"] = folder
        yield Path(folder)


def main() -> int:
    """Play the demo; return 0 when every result came once and in order."""
    console = Console(soft_wrap=True)
    with _own_folder() as folder, running_up(folder, console):
        settings = read_settings()
        with Screen(console) as screen:
            figures = asyncio.run(_opened(settings, screen))
    console.print()
    for name, figure in _table(figures):
        console.print(f"{name:<38}{figure}", highlight=False)
    return 0 if figures.all_well else 1


async def _opened(settings: Settings, screen: Screen) -> Figures:
    async with connect(settings) as hermes:
        return await _play(hermes, settings, screen)


if __name__ == "__main__":
    sys.exit(main())
