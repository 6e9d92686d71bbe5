"""The port to what tasks have consumed, each by itself and with all that is below it."""

from __future__ import annotations

from typing import Protocol

from hermes_async.domain.budget import Spent
from hermes_async.domain.task import Task
from hermes_async.domain.usage import Usage


class Accounts(Protocol):
    """Where the pen counts. The method is atomic and may be repeated."""

    async def spend(
        self, task: Task, ordinal: int, amount: Usage, *, asks: bool, model: str = ""
    ) -> Spent | None:
        """Count on the record of a task, and for each of its budgets; None: the task is forgotten.

        What an attempt that is over had consumed still counts, even if the task has ended; for nothing else
        does such an attempt matter any more.

        Args:
            task: the attempt's own view of it.
            ordinal: counts the calls of the attempt from 1; what was counted is not counted again.
            amount: what was, or is to be, consumed.
            asks: it is to be consumed, and is not counted if a budget refuses it or the attempt is over.
            model: with which model, for the metrics; empty: nobody has said.
        """
        ...
