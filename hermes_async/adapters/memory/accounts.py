"""What tasks have consumed, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hermes_async.adapters.memory.entry import Entry
from hermes_async.core.metrics import count_spent
from hermes_async.domain.budget import Spent
from hermes_async.domain.refusals import nothing_left
from hermes_async.domain.task import Task
from hermes_async.domain.usage import NO_USAGE, ONE_REQUEST, Usage


@dataclass(frozen=True)
class MemoryAccounts:
    """Counts on the entries of a store."""

    _entries: Mapping[str, Entry]
    _counts: Counter[str]

    def spend(self, task: Task, ordinal: int, amount: Usage, asks: bool, model: str) -> Spent | None:
        """Count an amount, unless it is refused or was counted before."""
        entry = self._entries.get(task.id)
        if entry is None:
            return None
        ours = entry.is_begun(task.attempt)
        granted = ordinal <= entry.spent.get(task.attempt, 0)
        if not granted and not (asks and (not ours or self._refuses(task, amount))):
            granted = True
            entry.spent[task.attempt] = ordinal
            self._count(task, amount)
            count_spent(self._counts, task.agent, model, amount)
        return Spent(granted, ours, entry.task.usage or NO_USAGE, self.trees(task))

    def check(self, task: Task) -> None:
        """Raise TaskRejected for a new task if a budget above it has nothing left."""
        if self._refuses(task, ONE_REQUEST):
            raise nothing_left(task, self.trees(task))

    def trees(self, task: Task) -> list[Usage]:
        """Return what the tree of each budget has consumed, nothing for those that are forgotten."""
        holders = (self._entries.get(budget.task_id) for budget in task.birth.budgets)
        return [(holder and holder.task.tree_usage) or NO_USAGE for holder in holders]

    def _refuses(self, task: Task, amount: Usage) -> bool:
        budgets = zip(task.birth.budgets, self.trees(task), strict=True)
        return any(budget.refuses(used, amount) for budget, used in budgets)

    def _count(self, task: Task, amount: Usage) -> None:
        self._add(task.id, "usage", amount)
        for budget in task.birth.budgets:
            self._add(budget.task_id, "tree_usage", amount)

    def _add(self, task_id: str, field: str, amount: Usage) -> None:
        entry = self._entries.get(task_id)
        if entry is not None:
            so_far = getattr(entry.task, field) or NO_USAGE
            entry.task = entry.task.model_copy(update={field: so_far + amount})
