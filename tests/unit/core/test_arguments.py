"""What public methods are given and cannot use is told in one sentence, which names method and parameter."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from hermes_async import TaskContext, TaskHandle, connect, subagent
from hermes_async.bootstrap import read_settings
from hermes_async.core.arguments import Count, Name, Seconds, Seq, Text, strict
from hermes_async.core.hermes import Hermes
from hermes_async.core.parent_context import ParentContext, ParentSession
from hermes_async.core.registry import Registry
from hermes_async.core.session import Session
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import InvalidInput, UserError
from hermes_async.relay.client import RelayClient
from tests.support.bench import Bench, MakeBench

pytestmark = pytest.mark.anyio


def undecorated(ctx: TaskContext, topic: str) -> str:
    return topic


@subagent
async def echo(ctx: TaskContext, text: str) -> str:
    return text


class Desk:
    """Has methods of every kind."""

    @strict
    def plain(self, text: Text, *, name: Name = None, anything: object = None) -> str:
        return f"{text} {name} {anything}"

    @strict
    async def later(self, limit: Count = 3) -> int:
        return limit

    @strict
    async def stream(self, after: Seq = 0) -> AsyncIterator[int]:
        yield after

    @strict
    def many(self, *seqs: Seq) -> int:
        return sum(seqs)

    @strict
    def wait(self, seconds: Seconds) -> float:
        return seconds


async def test_what_fits_comes_through_as_it_is() -> None:
    desk, thing = Desk(), object()
    assert desk.plain("x", name="y", anything=thing) == f"x y {thing}"
    assert await desk.later() == 3
    assert await desk.later(limit=5) == 5
    assert [each async for each in desk.stream(7)] == [7]
    assert (desk.many(), desk.many(1, 2, 3)) == (0, 6)
    assert (desk.wait(1), desk.wait(0.5), desk.wait(float("inf"))) == (1, 0.5, float("inf"))
    assert Desk.later.__name__ == "later"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda desk: desk.plain(5), "Desk.plain: text: Input should be a valid string"),
        (lambda desk: desk.plain("\ud800"), "Desk.plain: text: it has half a character (a lone surrogate)"),
        (lambda desk: desk.plain("x", name=b"y"), "Desk.plain: name: Input should be a valid string"),
        (lambda desk: desk.later(0), "Desk.later: limit: Input should be greater than or equal to 1"),
        (lambda desk: desk.later(True), "Desk.later: limit: Input should be a valid integer"),
        (lambda desk: desk.later(1.0), "Desk.later: limit: Input should be a valid integer"),
        (lambda desk: desk.later(10**30), "Desk.later: limit: Input should be less than or equal to"),
        (lambda desk: desk.stream(-1), "Desk.stream: after: Input should be greater than or equal to 0"),
        (lambda desk: desk.many(1, "2"), "Desk.many: seqs: Input should be a valid integer"),
        (lambda desk: desk.wait(float("nan")), "Desk.wait: seconds: Input should be greater than or equal"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_called(call: Callable[[Desk], object], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        call(Desk())
    assert str(caught.value).startswith(told)


def test_what_is_missing_or_unknown_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'text'"):
        Desk().plain()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'limits'"):
        Desk().later(limits=3)  # type: ignore[call-arg]


def takers() -> list[tuple[type, str, str]]:
    """Every parameter of a public method whose annotation says what it takes."""
    kinds = (Hermes, Session, TaskHandle, TaskContext, ParentContext, ParentSession, RelayClient)
    return [
        (kind, name, parameter.name)
        for kind in kinds
        for name, method in vars(kind).items()
        if hasattr(method, "__wrapped__") and inspect.isfunction(method)
        for parameter in inspect.signature(method).parameters.values()
        if parameter.annotation
        in ("Text", "Name", "Seq", "Count", "Seconds", "Patience", "Status", "Flag", "Key")
    ]


@pytest.mark.parametrize("taker", takers(), ids=lambda taker: f"{taker[0].__name__}.{taker[1]} {taker[2]}")
def test_every_public_parameter_is_checked(taker: tuple[type, str, str]) -> None:
    kind, name, parameter = taker
    method = getattr(kind, name)
    for wrong in (b"x", [], object()):
        with pytest.raises(InvalidInput, match=rf"^{kind.__name__}[.:].*\b{parameter}: "):
            method(object(), **{parameter: wrong})


def test_the_methods_that_take_numbers_and_texts_are_among_them() -> None:
    assert len(takers()) >= 30


CALLS: dict[str, Callable[[Session, TaskHandle[Any]], Awaitable[object]]] = {
    "Session.ack: seqs: ": lambda session, _: session.ack("x"),  # type: ignore[arg-type]
    "Session.pending: limit: ": lambda session, _: session.pending(limit=0),
    "Session.pending: after: ": lambda session, _: session.pending(after=-1),
    "Session.send_message: text: ": lambda session, _: session.send_message(5),  # type: ignore[arg-type]
    "Session.on: handler: ": lambda session, _: session.on("task.*", "x"),  # type: ignore[arg-type]
    "Session.events: after: ": lambda session, _: anext(session.events(float("nan"))),  # type: ignore[arg-type]
    "TaskHandle.events: after: ": lambda _, handle: anext(handle.events(after=-1)),
    "TaskHandle.cancel: force: ": lambda _, handle: handle.cancel(force="no"),  # type: ignore[arg-type]
    "subagent 'echo' cannot have this priority: Input should be a valid integer": (
        lambda session, _: session.submit("echo", "x", priority=True)
    ),
    "TaskHandle.send: text: ": lambda _, handle: handle.send(None),  # type: ignore[arg-type]
    "undecorated is no subagent: ": lambda session, _: session.dispatch(undecorated, "x"),  # type: ignore[call-overload]
    "a subagent is a function decorated with @subagent, or its name, not 5": (
        lambda session, _: session.dispatch(5)  # type: ignore[call-overload]
    ),
    "dispatch_many takes a list of inputs, not 5": lambda session, _: session.dispatch_many(echo, 5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("told", CALLS)
async def test_a_parent_is_told_what_it_has_mistaken(make_bench: MakeBench, told: str) -> None:
    bench = make_bench(echo)
    handle = await bench.session.dispatch(echo, "x")
    with pytest.raises(UserError) as caught:
        await CALLS[told](bench.session, handle)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    assert len(await bench.log()) == 1


async def test_hermes_is_asked_for_what_there_can_be(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"^Hermes.handle: task_id: Input should be a valid string$"):
        await bench.hermes.handle(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"^Hermes.session: parent: "):
        bench.hermes.session("s", parent=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"^Hermes.tasks: status: Input should be 'queued', 'running'"):
        await bench.hermes.tasks(status="done")  # type: ignore[arg-type]


@pytest.mark.parametrize("agent", [undecorated, "echo", None])
def test_only_subagents_can_be_registered(agent: Any) -> None:
    with pytest.raises(UserError, match=r"decorate it with @subagent|is a function decorated with @subagent"):
        Registry(AgentsConfig(), [agent])
    with pytest.raises(UserError, match=r"decorate it with @subagent|is a function decorated with @subagent"):
        read_settings(agents=[agent])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: connect("agents.yaml"), "connect: settings: Input should be an instance of Settings"),  # type: ignore[arg-type]
        (lambda: connect(agents=echo), "connect: agents: Input should be an instance of Iterable"),  # type: ignore[arg-type]
        (lambda: RelayClient("localhost:8765", "x"), "RelayClient: url: String should match pattern"),
        (lambda: RelayClient("http://x", "x", timeout=-1), "RelayClient: timeout: Input should be greater"),
        (lambda: RelayClient("http://x", 5), "RelayClient: token.str: Input should be a valid string"),  # type: ignore[arg-type]
    ],
)
def test_what_is_connected_with_is_checked_first(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("schema", ["", "\ud800", "nobody's name", "1 +", object()])
async def test_a_schema_that_is_none_is_refused(schema: Any) -> None:
    from hermes_async.core.shape import Shape

    with pytest.raises(
        UserError, match="the schema of a question is a type with a JSON form, or JSON Schema"
    ):
        Shape(schema)
