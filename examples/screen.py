"""What a person sees of a conversation: speech above, a bar for each running task below."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

#: In a pipe there are no bars: one line per task and step of this many percent.
STEP = 25


class Screen:
    """Speech and bars on a terminal, plain lines in a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._titles: dict[str, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._steps: dict[str, int] = {}
        self._live = Progress(
            TextColumn("  {task.description:<44}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}% {task.fields[message]}"),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._live.stop()

    def user(self, text: str) -> None:
        """The user has typed something."""
        self._say("bold", "you", text)

    def parent(self, text: str) -> None:
        """The parent answers."""
        self._say("cyan", "parent", text)

    def result(self, agent: str, text: str) -> None:
        """A result has reached the parent."""
        self._say("green", agent, text)

    def task(self, task_id: str, title: str) -> None:
        """A task was accepted."""
        self._titles[task_id] = title
        if self._console.is_terminal:
            self._bars[task_id] = self._live.add_task(title[:44], total=100, message="")

    def progress(self, task_id: str, percent: float | None, message: str) -> None:
        """A task has come further."""
        if task_id not in self._titles:  # it has ended: what it said before came late
            return
        if task_id in self._bars:
            self._live.update(self._bars[task_id], completed=percent, message=escape(message[:40]))
        elif self._is_new_step(task_id, percent or 0.0):
            self._say("dim", "progress", f"{self._titles[task_id]}: {percent or 0:.0f}% {message}")

    def _is_new_step(self, task_id: str, percent: float) -> bool:
        step = int(percent // STEP)
        known = self._steps.get(task_id, -1)
        self._steps[task_id] = max(step, known)
        return step > known

    def end(self, task_id: str) -> None:
        """A task has ended; its bar goes."""
        self._titles.pop(task_id, None)
        if task_id in self._bars:
            self._live.remove_task(self._bars.pop(task_id))

    def _say(self, style: str, who: str, text: str) -> None:
        first, *rest = text.splitlines() or [""]
        self._console.print(f"[{style}]{who:>14}[/] {escape(first)}", highlight=False)
        for line in rest:
            self._console.print(f"{'':>14} {escape(line)}", highlight=False)
