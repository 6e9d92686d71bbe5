"""What a run spends, counted on the record."""

from __future__ import annotations

from functools import partial
from typing import Final

from pydantic_ai.messages import ModelResponse

from hermes_async.adapters.model.answers import paid
from hermes_async.core.context import TaskContext
from hermes_async.domain.errors import BudgetExceeded, ConfigError
from hermes_async.domain.usage import LONGEST_NAME

#: Requests of one attempt whose task has no limit of its own: a model that goes in circles ends.
MOST_REQUESTS: Final = 50


class Purse:
    """Pays for a run: for requests and tools before they are made, for tokens when they are there."""

    def __init__(self, ctx: TaskContext, full: str) -> None:
        self._ctx = ctx
        self._full = full
        self._spend = partial(ctx.spend, model=full[:LONGEST_NAME])
        self._requests = 0

    async def ask(self) -> None:
        """Pay for one more request before it is made."""
        self._requests += 1
        if self._ctx.limits.requests is None and self._requests > MOST_REQUESTS:
            sentence = f"{MOST_REQUESTS} requests without an answer: set limits.requests if it needs more"
            raise BudgetExceeded(sentence)
        await self._spend(requests=1)

    async def pay(self, response: ModelResponse) -> None:
        """Pay for an answer, and then for the tools that it calls, before they are called."""
        usage = response.usage
        priced = paid(response, self._full)
        self._check(usage.input_tokens + usage.output_tokens, priced)
        await self._spend(
            input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost_usd=priced or 0.0
        )
        if response.tool_calls:  # by themselves: what is refused is not counted
            await self._spend(tool_calls=len(response.tool_calls))

    def _check(self, tokens: int, priced: float | None) -> None:
        """A limit that cannot be kept is no limit."""
        for limits in self._ctx.bounds:
            if not tokens and (limits.total_tokens is not None or limits.cost_usd is not None):
                raise ConfigError(
                    f"the server of {self._full!r} tells no usage, so no limit on it can be kept"
                )
            if priced is None and limits.cost_usd is not None:
                raise ConfigError(
                    f"nobody knows what {self._full!r} costs, so limits.cost_usd cannot be kept"
                )
