"""What tasks have consumed, over Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hermes_async.adapters.redis_store.penholder import Penholder
from hermes_async.adapters.redis_store.pipe import Script
from hermes_async.core.metrics import MOST_FIELDS
from hermes_async.domain.budget import Budget, Spent
from hermes_async.domain.task import Task
from hermes_async.domain.usage import Usage

SPEND = Script("spend", "accounts")


class RedisAccounts(Penholder):
    """One script counts for a task and its whole tree: a session's keys are together."""

    async def spend(
        self, task: Task, ordinal: int, amount: Usage, *, asks: bool, model: str = ""
    ) -> Spent | None:
        prefix, budgets = self._keys.of_task(task.id), encode_budgets(task.birth.budgets)
        what: tuple[str | int, ...] = (task.id, task.attempt, ordinal, int(asks), *amount.counts)
        found = await self._pen(SPEND, prefix, *what, task.agent, model, MOST_FIELDS, *budgets)
        if found is None:
            return None
        granted, ours, usage, trees = found
        return Spent(bool(granted), bool(ours), decode_counts(usage), [decode_counts(tree) for tree in trees])


def encode_budgets(budgets: Sequence[Budget]) -> Iterator[str | int]:
    """Yield each budget as the scripts read it."""
    for budget in budgets:
        yield budget.task_id
        yield from ("" if bound is None else bound for bound in budget.bounds)


def decode_counts(counts: Sequence[str | None]) -> Usage:
    """Return the usage that was counted."""
    return Usage.of(tuple(int(count or 0) for count in counts))
