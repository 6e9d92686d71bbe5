"""Which functions can be agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.domain.errors import UserError
from hermes_async.testing import LocalHermes

if TYPE_CHECKING:
    from somewhere import Hidden  # type: ignore[import-not-found]

Anything = TypeVar("Anything")


class Own(TaskContext):
    """A context of somebody's own."""


class Telling(Protocol):
    def progress(self, percent: float) -> None: ...


def bare(x): ...  # type: ignore[no-untyped-def]
def context(ctx: TaskContext, later: Later) -> Later: ...  # type: ignore[empty-body]
def own(ctx: Own) -> None: ...
def any_(ctx: Any) -> None: ...
def object_(ctx: object) -> None: ...
def protocol(ctx: Telling) -> None: ...
def hidden(ctx: Hidden) -> None: ...
def variable(ctx: Anything) -> None: ...
def maybe(ctx: TaskContext | None) -> None: ...
def maybe_as_before(ctx: Optional[TaskContext]) -> None: ...  # noqa: UP045
def misses_one(ctx: TaskContext, text: str, times: int) -> str:
    """Repeat."""
    return text * times


class Later: ...


def text(x: str) -> None: ...
def texts(x: list[str]) -> None: ...
def either(x: str | None) -> None: ...
def model(x: Later, later: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def async_generator(ctx: TaskContext) -> AsyncIterator[int]:
    yield 1


def generator(ctx: TaskContext) -> Iterator[int]:
    yield 1


class Callable_:
    def __call__(self, ctx: TaskContext) -> None: ...


FIT = [bare, context, own, any_, object_, protocol, hidden, variable, maybe, maybe_as_before]
UNFIT: list[tuple[Callable[..., Any], str]] = [
    *((each, "must take a TaskContext as its first parameter; 'x' is none") for each in (text, texts)),
    *((each, "must take a TaskContext as its first parameter; 'x' is none") for each in (either, model)),
    (partial(text), "must take a TaskContext as its first parameter; 'x' is none"),
    (async_generator, "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (generator, "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (partial(generator), "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (Callable_(), "is a Callable_ object, not a function; write a `def` that calls it"),
]


def declared(function: Any, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(f"{__name__}.found", function, raising=False)
    return Registry(AgentsConfig(agents={"a": AgentSpec(name="a", run=f"{__name__}:found")}))


@pytest.mark.parametrize("function", FIT)
def test_what_may_take_a_context_can_be_an_agent(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subagent(function).function is function
    assert declared(function, monkeypatch).agent("a").function is function


@pytest.mark.parametrize(("function", "sentence"), UNFIT)
def test_what_could_not_run_is_refused_in_one_sentence(
    function: Callable[..., Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make in (
        lambda: subagent(name="a")(function),
        lambda: declared(function, monkeypatch).agent("a"),
    ):
        with pytest.raises(UserError) as caught:
            make()
        assert str(caught.value) == f"agent 'a' {sentence}"


@pytest.mark.anyio
async def test_a_function_with_arguments_bound_already_is_one() -> None:
    twice = subagent(partial(misses_one, times=2))
    assert (twice.name, twice.description) == ("misses_one", "Repeat.")
    async with LocalHermes(twice) as hermes:
        session = hermes.session("s")
        assert await (await session.dispatch("misses_one", "ab")) == "abab"
        assert await (await session.dispatch("misses_one", "ab", times=1)) == "ab"
        with pytest.raises(UserError, match=r"^misses_one: text: Input should be a valid string"):
            await session.dispatch("misses_one", 1)
