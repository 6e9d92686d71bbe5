"""With whom an attempt deals while it works: most deal with nobody, and pay nothing for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from hermes_async.core.conversation import Conversation
from hermes_async.core.delegator import Delegator
from hermes_async.core.handle import TaskHandle
from hermes_async.core.spending import Spending
from hermes_async.domain.events import AnyEvent


class Delegate(Delegator, Protocol):
    """How a context starts child tasks, and hears of them."""

    async def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> TaskHandle[Any]:
        """Start one."""
        ...

    async def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> list[TaskHandle[Any]]:
        """Start many of a kind."""
        ...

    async def news(self) -> Sequence[AnyEvent]:
        """Wait until a task of `submit` has ended or asks something, and return what is new."""
        ...


class Company(NamedTuple):
    """With whom an attempt deals: its children, its parent, and who counts what it consumes."""

    delegate: Delegate
    conversation: Conversation
    spending: Spending
