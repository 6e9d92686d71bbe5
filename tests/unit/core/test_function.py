"""Which functions can be agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar

import pytest

from hermes_async.core.context import TaskContext
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import subagent
from hermes_async.domain.agent import AgentsConfig, AgentSpec
from hermes_async.domain.errors import TaskFailed, UserError
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


class Methods:
    def method(self, ctx: TaskContext, text: str) -> str:
        return text

    @classmethod
    def of_class(cls, ctx: TaskContext, text: str) -> str:
        return text


def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


def nothing() -> None: ...
def star(ctx: TaskContext, *texts: str) -> None: ...
def nameless(ctx: TaskContext, text: str, /) -> None: ...
def nameless_context(ctx: TaskContext, /, text: str) -> None: ...


FIT = [
    *(bare, context, own, any_, object_, protocol, hidden, variable, maybe, maybe_as_before),
    *(nameless_context, wraps(own)(wrapper(own)), Methods().method, Methods.of_class, cache(own)),
]
UNFIT: list[tuple[Callable[..., Any], str]] = [
    *((each, "must take a TaskContext as its first parameter; 'x' is none") for each in (text, texts)),
    *((each, "must take a TaskContext as its first parameter; 'x' is none") for each in (either, model)),
    (partial(text), "must take a TaskContext as its first parameter; 'x' is none"),
    (async_generator, "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (generator, "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (partial(generator), "must not `yield`: `return` one value, and tell of parts with `ctx.partial`"),
    (Callable_(), "is a Callable_ object, not a function; write a `def` that calls it"),
    (partial(Callable_()), "is a Callable_ object, not a function; write a `def` that calls it"),
    (Callable_, "is a class, not a function; write a `def` that calls it"),
    (max, "does not tell what it takes; write a `def` that calls it"),
    (nothing, "must take a TaskContext as its first parameter"),
    (
        wrapper(own),
        "must take a TaskContext as its first parameter; if it is wrapped, `functools.wraps` shows it",
    ),
    (star, "cannot take *args or `/`: name its parameters"),
    (nameless, "cannot take *args or `/`: name its parameters"),
    (Methods.method, "must take a TaskContext as its first parameter; 'self' is none"),
]


def declared(function: Any, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(f"{__name__}.found", function, raising=False)
    return Registry(AgentsConfig(agents={"a": AgentSpec(name="a", run=f"{__name__}:found")}))


@pytest.mark.parametrize("function", FIT)
def test_what_may_take_a_context_can_be_an_agent(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subagent(function).function == function
    assert declared(function, monkeypatch).agent("a").function == function


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


def test_a_function_without_a_name_is_told_how_to_get_one() -> None:
    with pytest.raises(UserError) as caught:
        subagent(lambda ctx: None)
    assert str(caught.value) == (
        "an agent cannot be called '<lambda>': `name` must be a name of letters, digits, `_`, "
        "`-` and `.` that begins with a letter"
    )
    assert subagent(name="nothing")(lambda ctx: None).name == "nothing"


@pytest.mark.anyio
async def test_a_coroutine_that_nobody_awaits_is_told_of() -> None:
    async def inner(ctx: TaskContext) -> int:
        return 1

    async with LocalHermes(subagent(wraps(inner)(lambda ctx: inner(ctx)))) as hermes:
        handle = await hermes.session("s").dispatch("inner")
        with pytest.raises(
            TaskFailed, match="inner has returned a coroutine: `return await` it, in an `async def`"
        ):
            await handle


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
