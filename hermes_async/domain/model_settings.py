"""What a model may be told of how to answer, by the names that providers have in common."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from hermes_async.domain.errors import did_you_mean
from hermes_async.domain.spec import Count, Must, Names, Seconds, Spec, Switch

Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]
_EFFORTS: Final = get_args(Effort)
_THINKING: Final = f"true, false, or one of {', '.join(_EFFORTS)}"


def _thinking(said: object) -> object:
    if isinstance(said, bool) or said in _EFFORTS:
        return said
    raise ValueError(f"must be {_THINKING}{did_you_mean(str(said), _EFFORTS)}")


Penalty = Annotated[float, Field(ge=-2, le=2), Must("a number from -2 to 2")]


class ModelSettings(Spec):
    """How a model answers; what is unset is as its provider has it, and what one does not know it ignores."""

    #: Of one answer.
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2), Must("a number from 0 to 2")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1), Must("a number from 0 to 1")] | None = None
    top_k: Count | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), Must("a whole number")] | None = None
    stop_sequences: Names = ()
    parallel_tool_calls: Switch | None = None
    thinking: Annotated[bool | Effort, BeforeValidator(_thinking), Must(_THINKING)] | None = None
    #: Have the provider keep what it has read for the next request, where it does not by itself.
    cache: Switch | None = None
    #: Seconds of one request without a word.
    timeout: Seconds | None = None

    def said(self) -> dict[str, Any]:
        """Return what is set, as plain values."""
        return self.model_dump(mode="json", exclude_defaults=True)
