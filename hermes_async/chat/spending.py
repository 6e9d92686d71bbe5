"""What one turn of the parent may consume."""

from __future__ import annotations

from hermes_async.domain.agent import RunLimits
from hermes_async.domain.budget import COUNTED
from hermes_async.domain.errors import TurnFailed
from hermes_async.domain.usage import Usage

#: Requests in one turn, unless the agent says otherwise: a model that calls tools for ever is stopped.
REQUESTS = 50


class Spending:
    """Counts what a turn consumes, and ends it when that is too much."""

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self.usage = Usage()

    def ask(self) -> None:
        """Count a request that is about to be made.

        Raises:
            TurnFailed: it is one too many, or the turn has consumed too much.
        """
        most = self._limits.requests or REQUESTS
        self._check("requests", self.usage.requests + 1, most)
        self._check(
            "total_tokens", self.usage.input_tokens + self.usage.output_tokens, self._limits.total_tokens
        )
        self._check("cost_usd", self.usage.cost_usd or 0.0, self._limits.cost_usd)
        self.usage = self.usage.model_copy(update={"requests": self.usage.requests + 1})

    def answered(self, input_tokens: int, output_tokens: int, cost_usd: float | None) -> None:
        """Count what an answer has taken.

        Raises:
            TurnFailed: there is a limit on something that neither the server nor the price list tells.
        """
        tokens = input_tokens + output_tokens
        if not tokens and self._limits.total_tokens is not None:
            raise TurnFailed("the model's server tells no usage, so limits.total_tokens cannot be kept")
        if cost_usd is None and self._limits.cost_usd is not None:
            raise TurnFailed("nobody knows what that has cost, so limits.cost_usd cannot be kept")
        cost = self.usage.cost_usd if cost_usd is None else (self.usage.cost_usd or 0.0) + cost_usd
        self.usage = self.usage.model_copy(
            update={
                "input_tokens": self.usage.input_tokens + input_tokens,
                "output_tokens": self.usage.output_tokens + output_tokens,
                "cost_usd": cost,
            }
        )

    def call(self, count: int) -> bool:
        """Count calls of tools; False: they are too many, and must not be made."""
        most = self._limits.tool_calls
        if most is not None and self.usage.tool_calls + count > most:
            return False
        self.usage = self.usage.model_copy(update={"tool_calls": self.usage.tool_calls + count})
        return True

    def _check(self, name: str, value: float, most: float | None) -> None:
        if most is not None and value > most:
            raise TurnFailed(f"this turn has reached its limit of {most:g} {COUNTED[name]}")
