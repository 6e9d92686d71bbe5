"""A function's parameters and result as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import BaseModel

from hermes_async.core.context import TaskContext
from hermes_async.core.signature import MAX_BYTES, MAX_DEPTH, Signature, as_json
from hermes_async.domain.errors import InvalidInput, UserError
from hermes_async.domain.task import Birth
from tests.support.values import make_task

if TYPE_CHECKING:
    from decimal import Decimal


class Query(BaseModel):
    topic: str
    depth: int = 1


@dataclass
class Report:
    title: str
    when: datetime


def agent(ctx: TaskContext, topic: str, *, depth: int = 1, mode: Literal["a", "b"] = "a") -> None: ...
def typed(ctx: TaskContext, query: Query, when: datetime | None = None) -> Report: ...  # type: ignore[empty-body]
def loose(ctx, first, second=2, **more): ...  # type: ignore[no-untyped-def]
def bare(ctx: TaskContext) -> None: ...
def texts(ctx: TaskContext, text: str) -> None: ...
def named(ctx: Any, **anything: Any) -> None: ...
def hidden(ctx: TaskContext, price: Decimal, name: str) -> Decimal: ...  # type: ignore[empty-body]
def broken(ctx: TaskContext, price: Nowhere, name: str) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def nested(ctx: TaskContext, prices: list[Report.nothing]) -> None: ...  # type: ignore[name-defined]


def bind(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return Signature(function).bind(args, kwargs)


# -- bind ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "bound"),
    [
        (bind(agent, "chips"), {"topic": "chips"}),
        (bind(agent, topic="chips", depth=3), {"topic": "chips", "depth": 3}),
        (bind(typed, Query(topic="x")), {"query": {"topic": "x", "depth": 1}}),
        (bind(typed, {"topic": "x"}), {"query": {"topic": "x"}}),
        (
            bind(typed, Query(topic="x"), datetime(2026, 1, 2, tzinfo=UTC)),
            {"query": {"topic": "x", "depth": 1}, "when": "2026-01-02T00:00:00Z"},
        ),
        (bind(loose, 1, third=(3, {4})), {"first": 1, "third": [3, [4]]}),
        (bind(bare), {}),
        (bind(named, x=1, anything=2), {"x": 1, "anything": 2}),
        (bind(hidden, "1", "n"), {"price": "1", "name": "n"}),
    ],
)
def test_arguments_are_bound_by_name(given: dict[str, Any], bound: dict[str, Any]) -> None:
    assert given == bound


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "told"),
    [
        (agent, (), {}, "agent: missing a required argument: 'topic'.*it takes \\(topic: str"),
        (agent, ("a", "b"), {}, "agent: too many positional arguments"),
        (agent, ("a",), {"dpth": 1}, "agent: got an unexpected keyword argument 'dpth'"),
        (agent, ("a",), {"topic": "b"}, "agent: multiple values for argument 'topic'"),
        (agent, (), {"topic": "b", "ctx": 1}, "agent: multiple values for argument 'ctx'"),
        (agent, (5,), {}, "agent: topic: Input should be a valid string"),
        (agent, ("a",), {"mode": "c"}, "agent: mode: Input should be 'a' or 'b'"),
        (
            typed,
            ({"topic": "x", "depth": "deep"},),
            {},
            "typed: query.depth: Input should be a valid integer",
        ),
        (bare, (1,), {}, "bare: too many positional arguments.*it takes \\(\\)"),
    ],
)
def test_what_does_not_fit_is_named(function: Any, args: Any, kwargs: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Signature(function).bind(args, kwargs)


@pytest.mark.parametrize("function", [broken, hidden])
def test_annotations_that_cannot_be_read_are_not_checked_but_the_others_are(function: Any) -> None:
    assert bind(function, price=1, name="n") == {"price": 1, "name": "n"}
    with pytest.raises(InvalidInput, match="name: Input should be a valid string"):
        bind(function, price=1, name=1)
    assert bind(nested, prices=1) == {"prices": 1}


def test_a_type_of_the_function_around_is_read_if_the_function_has_it() -> None:
    class Local(BaseModel):
        day: date = date(2026, 1, 1)

    def local(ctx: TaskContext, it: Local) -> Local:
        return Local()

    assert Signature(local).validate({"it": {}}) == {"it": Local()}
    assert Signature(local).returned({}, "local") == {}


def no_context() -> None: ...
def star(ctx: TaskContext, *args: int) -> None: ...
def only_star(*args: int) -> None: ...
def only_named(*, ctx: TaskContext) -> None: ...
def only_keywords(**kwargs: Any) -> None: ...
def nameless(ctx: TaskContext, topic: str, /) -> None: ...


@pytest.mark.parametrize("function", [no_context, only_star, only_named, only_keywords])
def test_a_function_must_take_a_context(function: Any) -> None:
    with pytest.raises(UserError, match=f"{function.__name__}' must take a TaskContext as its first"):
        bind(function)


@pytest.mark.parametrize("function", [star, nameless])
def test_parameters_must_have_names(function: Any) -> None:
    with pytest.raises(UserError, match="name its parameters"):
        bind(function, "x")


# -- text ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "text", "bound"),
    [
        (agent, "chips and more", {"topic": "chips and more"}),
        (agent, '{"topic": "chips", "depth": 2}', {"topic": "chips", "depth": 2}),
        (agent, '{"other": 1}', {"topic": '{"other": 1}'}),
        (agent, '{"topics": 1, "a": 2, "b": 3, "c": 4}', {"topic": '{"topics": 1, "a": 2, "b": 3, "c": 4}'}),
        (agent, '{"optic": 1}', {"topic": '{"optic": 1}'}),
        (texts, '{"next": 1}', {"text": '{"next": 1}'}),
        (texts, '{"next": "b"}', {"text": '{"next": "b"}'}),
        (texts, '{"texts": ["a", "b"]}', {"text": '{"texts": ["a", "b"]}'}),
        (texts, '{"text": "{\\"text\\": 1}"}', {"text": '{"text": 1}'}),
        (texts, '{"tex": "a", "texts": "b"}', {"text": '{"tex": "a", "texts": "b"}'}),
        (agent, "[1]", {"topic": "[1]"}),
        (agent, "", {"topic": ""}),
        (bare, "anything", {}),
        (bare, "{}", {}),
    ],
)
def test_a_text_is_an_object_of_arguments_or_the_first(function: Any, text: str, bound: Any) -> None:
    assert Signature(function).bind_text(text) == bound


def test_a_text_that_fits_neither_way_is_refused() -> None:
    with pytest.raises(InvalidInput, match="depth"):
        Signature(agent).bind_text('{"topic": "x", "depth": "deep"}')
    with pytest.raises(InvalidInput, match="topic"):
        Signature(agent).bind_text("{}")


AS_TOPIC = 'A text that is JSON is given as {"topic": "..."}'


def number(ctx: TaskContext, seconds: float) -> None: ...
def record(ctx: TaskContext, order: dict[str, int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "text", "told"),
    [
        (agent, '{"topc": "chips"}', f"agent: no argument 'topc'; did you mean 'topic'? {AS_TOPIC}"),
        (agent, '{"topc": "x", "dep": 2}', f"agent: no argument 'topc'; did you mean 'topic'? {AS_TOPIC}"),
        (number, '{"secs": 1}', "number: no argument 'secs'; did you mean 'seconds'?"),
        (number, '{"second": 1}', "number: no argument 'second'; did you mean 'seconds'?"),
        (number, '{"x": 1}', "number: no argument 'x'; it takes (seconds: float)"),
        (record, '{"id": 5, "count": 1}', "record: no argument 'id'; it takes (order: dict[str, int])"),
    ],
)
def test_an_object_with_a_misspelt_argument_is_no_text(function: Any, text: str, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Signature(function).bind_text(text)
    assert str(caught.value) == told


# -- validate, result ------------------------------------------------------------------------------------
def test_a_worker_gets_the_function_s_own_types() -> None:
    plain = bind(typed, Query(topic="x"), datetime(2026, 1, 2, tzinfo=UTC))
    assert Signature(typed).validate(plain) == {
        "query": Query(topic="x"),
        "when": datetime(2026, 1, 2, tzinfo=UTC),
    }


def test_a_worker_refuses_what_another_version_sent() -> None:
    with pytest.raises(InvalidInput, match="agent: topic"):
        Signature(agent).validate({"topic": None})


def test_a_result_is_rebuilt_as_the_annotated_type() -> None:
    report = Report("t", datetime(2026, 1, 2, tzinfo=UTC))
    assert Signature(typed).result.read(as_json(report, "it")) == report
    assert Signature(loose).result.read({"any": 1}) == {"any": 1}
    assert Signature(bare).result.read(None) is None


# -- JSON ------------------------------------------------------------------------------------------------
def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "\ud800", {"\udfff": 1}, object(), b"\xff", circle(), lambda: None],
    ids=["nan", "inf", "surrogate", "key", "object", "bytes", "circle", "function"],
)
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="the input of loose cannot be written as JSON"):
        bind(loose, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"a": -math.inf}]])
def test_numbers_that_json_lacks_are_named(value: object) -> None:
    with pytest.raises(
        InvalidInput, match=r"it cannot be written as JSON: NaN and Infinity have no form there$"
    ):
        as_json(value, "it")


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 199, 250, 5_000])
def test_what_is_too_deep_is_refused(levels: int) -> None:
    with pytest.raises(InvalidInput, match=r"nested deeper|cannot be written"):
        as_json(deep(levels), "it")


def test_the_deepest_allowed_can_be_read_back() -> None:
    task = make_task(input={"first": as_json(deep(MAX_DEPTH), "it")})
    assert Birth.model_validate_json(task.birth.model_dump_json()) == task.birth


def test_a_megabyte_is_the_limit_and_bytes_count() -> None:
    assert as_json("x" * (MAX_BYTES - 2), "it")
    with pytest.raises(InvalidInput, match=r"it is 1,000,001 bytes of JSON, more than 1,000,000: pass"):
        as_json("x" * (MAX_BYTES - 1), "it")
    with pytest.raises(InvalidInput, match=r"it is 12 bytes of JSON, more than 10"):
        as_json("äöüßx"[:4] + "xx", "it", limit=10)


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "❄", [], {}, {"a": [1, {"b": None}]}, 10**30])
def test_plain_values_stay_as_they_are(value: object) -> None:
    assert as_json(value, "it") == value
