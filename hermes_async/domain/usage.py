"""What tasks consume, in sums that are exact: dollars are counted in billionths."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from hermes_async.domain.errors import InvalidInput

#: Parts of a US dollar in which costs are counted.
NANO = 1_000_000_000


class Usage(BaseModel):
    """What a task consumed so far."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    #: US dollars; None: nobody has named a price.
    cost_usd: float | None = None

    @property
    def total_tokens(self) -> int:
        """Tokens in both directions."""
        return self.input_tokens + self.output_tokens

    @property
    def counts(self) -> tuple[int, ...]:
        """The fields in their order as whole numbers, the cost in billionths of a dollar."""
        return (
            self.requests,
            self.tool_calls,
            self.input_tokens,
            self.output_tokens,
            round((self.cost_usd or 0.0) * NANO),
        )

    @classmethod
    def of(cls, counts: tuple[int, ...]) -> Usage:
        """Return the usage that has these counts."""
        *whole, cost = counts
        values = dict(zip(cls.model_fields, whole, strict=False))
        return cls(**values, cost_usd=cost / NANO if cost else None)

    def __add__(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage.of(tuple(map(sum, zip(self.counts, other.counts, strict=True))))


NO_USAGE = Usage()
#: What an agent that thinks needs at least: who cannot have it need not begin.
ONE_REQUEST = Usage(requests=1)

#: What one report may tell: more is a mistake, and would not fit into the sums.
MOST_COUNTED, MOST_DOLLARS = 1_000_000_000, 100_000.0
#: Characters of a model's name.
LONGEST_NAME = 100


def checked_usage(
    requests: int, tool_calls: int, input_tokens: int, output_tokens: int, cost_usd: float
) -> Usage:
    """Return what somebody has consumed.

    Raises:
        InvalidInput: an amount is negative, no number, or beyond all reason.
    """
    counts = {
        "requests": requests,
        "tool_calls": tool_calls,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    for name, count in counts.items():
        if not isinstance(count, int) or not 0 <= count <= MOST_COUNTED:
            raise InvalidInput(f"{name} is a whole number from 0 to {MOST_COUNTED:,}, not {count!r:.80}")
    if not isinstance(cost_usd, int | float) or not 0 <= cost_usd <= MOST_DOLLARS:
        raise InvalidInput(f"cost_usd is an amount from 0 to {MOST_DOLLARS:,.0f}, not {cost_usd!r:.80}")
    return Usage(**counts, cost_usd=cost_usd or None)


def checked_model(name: str) -> str:
    """Return the name of a model, or nothing.

    Raises:
        InvalidInput: it is too long, or has unprintable characters.
    """
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"model is a name of up to {LONGEST_NAME} printable characters, not {name!r:.80}")
    return name
