"""What an attempt consumes: counted on the record, and held against the budgets that bind its task."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

from hermes_async.core.accounts import Accounts
from hermes_async.core.ending import leave
from hermes_async.core.journal import patiently
from hermes_async.domain.budget import Spent, budget_is_spent
from hermes_async.domain.errors import BudgetExceeded
from hermes_async.domain.task import Task
from hermes_async.domain.usage import NO_USAGE, Usage


class Spending:
    """Speaks for one claimed attempt.

    Its calls are written one after the other: a repeated one is known by its ordinal, so none may overtake.

    Args:
        task: the claimed task.
        accounts: where it is counted.
        on_spent: is called at each call, which is a sign of life.
    """

    def __init__(self, task: Task, accounts: Accounts, on_spent: Callable[[], None] = lambda: None) -> None:
        #: What the task has consumed so far, over all its attempts.
        self.usage = task.usage or NO_USAGE
        #: Called when the record says that the attempt is not ours any more.
        self.on_lost: Callable[[], None] = lambda: None
        self._task = task
        self._accounts = accounts
        self._on_spent = on_spent
        self._ordinals = itertools.count(1)
        self._turn = asyncio.Lock()
        self._writes: set[asyncio.Task[Spent | None]] = set()

    async def spend(self, amount: Usage, model: str = "") -> Usage:
        """Count an amount, spent with a model or without, and return what the task has consumed so far.

        Raises:
            BudgetExceeded: a limit does not allow it, or is exceeded by it.
            CancelledError: the attempt is over.
        """
        self._on_spent()
        asks = not amount.total_tokens and not amount.cost_usd
        write = asyncio.ensure_future(self._write(amount, asks, model))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        spent = await asyncio.shield(write)  # who is cancelled has spent it all the same
        if spent is None or not spent.ours:
            await leave(self.on_lost)
        for budget, used in zip(self._task.birth.budgets, spent.trees, strict=True):
            told = budget.exceeded(used) if spent.granted else budget.refuses(used, amount)
            if told:
                cure = "go on with its partial results, or ask for less"
                raise BudgetExceeded(f"{budget_is_spent(budget.task_id, told)}; {cure}")
        return spent.usage

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def _write(self, amount: Usage, asks: bool, model: str) -> Spent | None:
        async with self._turn:
            ordinal = next(self._ordinals)
            count = partial(self._accounts.spend, self._task, ordinal, amount, asks=asks, model=model)
            spent = await patiently(count, f"what {self._task.id} has consumed")
        if spent is not None:
            self.usage = spent.usage
        return spent
