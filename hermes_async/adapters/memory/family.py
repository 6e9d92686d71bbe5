"""Tasks and those that they have dispatched, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hermes_async.adapters.memory.entry import Entry
from hermes_async.core.ports import Cancelled
from hermes_async.domain.events import AnyEvent, CancelRequestedData, task_event
from hermes_async.domain.refusals import NOT_RUNNING, parent_has_ended
from hermes_async.domain.task import Task, TaskStatus


@dataclass(frozen=True)
class MemoryFamily:
    """Knows who dispatched whom, and stops whole trees.

    Args:
        _entries: those of the store.
        _write: applies an event to an entry.
    """

    _entries: Mapping[str, Entry]
    _write: Callable[[Entry, AnyEvent], None]

    def join(self, task: Task, check: Callable[[Task], None]) -> None:
        """Note a task with its parent task, which must be running, if `check` has nothing against it.

        Raises:
            TaskRejected: it is not.
        """
        birth = task.birth
        if birth.parent_task_id is None:
            return
        parent = self._entries.get(birth.parent_task_id)
        if parent is not None and parent.task.cancel_requested:
            raise parent_has_ended(task, "to be cancelled")
        if parent is None or not parent.is_begun(birth.parent_attempt):
            raise parent_has_ended(task, NOT_RUNNING)
        check(task)
        parent.children.append(task.id)

    def cancel(self, task_ids: Iterable[str], *, below: bool, force: bool) -> Cancelled:
        """Ask tasks to stop, and with `below` all that are below them: the leaves first."""
        tree = [each for each in task_ids if each in self._entries]
        for parent in tree if below else ():
            tree += (child for child in self._entries[parent].children if child in self._entries)
        running, ended = [], []
        for entry in [self._entries[each] for each in reversed(tree)]:
            if entry.task.status.is_terminal:
                continue
            if not entry.task.cancel_requested:
                asked = CancelRequestedData(force=force)
                self._write(entry, task_event(entry.task, "task.cancel_requested", asked))
            if entry.task.status is TaskStatus.QUEUED:
                self._write(entry, task_event(entry.task, "task.cancelled"))
                ended.append(entry.task.id)
            else:
                running.append(entry.task.id)
        return Cancelled(running, ended)
