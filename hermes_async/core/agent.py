"""A subagent as a value: a function, and how it is to be run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from hermes_async.core.options import spec_of
from hermes_async.core.signature import Signature, name_of, unbound
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.errors import UserError
from hermes_async.domain.task import Lane

P = ParamSpec("P")
R = TypeVar("R")


class Needs(Protocol):
    """What an agent needs beside its function: packages, keys, prices; a Python function needs nothing."""

    def check(self, options: SubagentSpec) -> None:
        """Look whether tasks with these options can run in this process.

        Raises:
            ConfigError: they cannot; the message says what is missing.
        """
        ...

    def admit(self, options: SubagentSpec) -> None:
        """Refuse a dispatch that no worker could run, as far as this process can know.

        Raises:
            ConfigError: the message says what is missing.
        """
        ...

    def prepare(self, options: SubagentSpec) -> None:
        """Do what takes long, once, before the first task; it finds whatever else may be missing.

        Raises:
            ConfigError: tasks with these options cannot run; the message says what is missing.
        """
        ...

    async def close(self) -> None:
        """Give back what is held on the running loop."""
        ...


def checked_agent(value: object) -> Subagent[..., Any]:
    """Return an agent as it is.

    Raises:
        UserError: it is none; a function is one only when it is decorated.
    """
    if isinstance(value, Subagent):
        return value
    if callable(value):
        raise UserError(f"{name_of(value)} is no subagent: decorate it with @subagent")
    raise UserError(f"a subagent is a function decorated with @subagent, or its name, not {value!r:.60}")


@dataclass(frozen=True)
class Subagent(Generic[P, R]):
    """An agent function with its options; making one has no side effect."""

    name: str
    function: Callable[..., Any]
    spec: SubagentSpec
    pool: Lane | None = None
    needs: Needs | None = None
    #: What `options` has said: at a dispatch it wins over agents.yaml.
    chosen: SubagentSpec | None = None
    #: It takes the place of whichever agent has its name.
    stands_in: bool = False

    @cached_property
    def signature(self) -> Signature:
        """The function's parameters and result."""
        return Signature(self.function)

    @property
    def description(self) -> str:
        """What a parent model reads before it delegates."""
        return inspect.getdoc(unbound(self.function)) or ""

    @property
    def is_async(self) -> bool:
        """True for `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @property
    def lane(self) -> Lane:
        """Where it runs: `async def` in the async lane, `def` in the process lane, unless `pool` says so."""
        return self.pool or (Lane.ASYNC if self.is_async else Lane.PROCESS)

    def options(self, **changes: Any) -> Subagent[P, R]:
        """Return the same subagent with other options, for example `research.options(timeout=10)`.

        Dispatched so, they win over agents.yaml; registered so, they are its defaults.

        Raises:
            UserError: an option is not known, or has no such value.
        """
        said = spec_of(self.spec.id, self.spec.agent, changes)
        return self.but(spec=said.over(self.spec), chosen=said.over(self.chosen) if self.chosen else said)

    def but(self, **changes: Any) -> Subagent[P, R]:
        """Return it with other fields; what was worked out of its function is kept."""
        made = replace(self, **changes)
        if made.function is self.function:
            vars(made)["signature"] = self.signature
        return made
