"""What a model costs, by the price list that comes with pydantic-ai: no request is made for it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from hermes_async.adapters.model.names import check_installed, full_name
from hermes_async.domain.agent import RunLimits
from hermes_async.domain.errors import ConfigError


class Tokens(NamedTuple):
    """What a price is asked for."""

    input_tokens: int
    output_tokens: int
    cache_write_tokens: int | None = None
    cache_read_tokens: int | None = None
    input_audio_tokens: int | None = None
    cache_audio_read_tokens: int | None = None
    output_audio_tokens: int | None = None


def check_price(name: str, base_url: str | None, limits: RunLimits) -> None:
    """Look whether a limit on the cost can be kept.

    Raises:
        ConfigError: there is such a limit, and nobody knows what the model costs, or no price list is here.
    """
    if limits.cost_usd is None:
        return
    check_installed(name)
    if not _is_known(full_name(name, base_url)):
        raise ConfigError(
            f"model {name!r} has no known price, so limits.cost_usd cannot be kept: "
            "limit total_tokens instead, or name a model that has one"
        )


@cache
def _is_known(full: str) -> bool:
    return cost(full, 1_000, 1_000) is not None


def cost(full: str, input_tokens: int, output_tokens: int) -> float | None:
    """Return what tokens cost, in US dollars, or None when nobody knows.

    Args:
        full: `provider:model`.
        input_tokens: those of the request.
        output_tokens: those of the answer.
    """
    from genai_prices import calc_price  # noqa: PLC0415

    provider, _, model = full.partition(":")
    if provider.startswith("openai"):
        provider = "openai"
    try:
        price = calc_price(Tokens(input_tokens, output_tokens), model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    return float(price.total_price)
