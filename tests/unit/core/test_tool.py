"""What a model reads of a function, and what it may not be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from hermes_async.core.context import TaskContext
from hermes_async.core.tool import MAX_CHARS, TIMEOUT, Tool, tool
from hermes_async.domain.errors import InvalidInput, UserError

if TYPE_CHECKING:
    from decimal import Decimal


class Where(BaseModel):
    town: str


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def price(ctx: TaskContext, item: str, amount: int = 1, *, tags: list[str] | None = None) -> float:
    """Tell a price.

    It is that of today.

    Args:
        item: what it is, in a word
            or two.
        amount (int): how many.

    Returns:
        Euros.

    Raises:
        ValueError: there is no such thing.
    """
    return 1.0


def test_what_a_model_reads() -> None:
    made = Tool("price", price)
    assert made.description == "Tell a price.\n\nIt is that of today."
    assert made.takes_context
    assert not made.is_async
    assert made.schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["item"],
        "properties": {
            "item": {"type": "string", "description": "what it is, in a word or two."},
            "amount": {"type": "integer", "default": 1, "description": "how many."},
            "tags": {
                "anyOf": [{"items": {"type": "string"}, "type": "array"}, {"type": "null"}],
                "default": None,
            },
        },
    }


def test_arguments_become_the_function_s_own_types() -> None:
    async def visit(
        where: Where, size: Size, how: Literal["fast", "slow"], n: Annotated[int, Field(ge=1)]
    ) -> None: ...

    made = Tool("visit", visit)
    assert made.is_async
    assert not made.takes_context
    given = made.checked({"where": {"town": "Ulm"}, "size": "small", "how": "fast", "n": "2"})
    assert given == {"where": Where(town="Ulm"), "size": Size.SMALL, "how": "fast", "n": 2}
    assert "$defs" in made.schema


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"amount": 2}, "item: Field required"),
        ({"item": "tea", "amount": "many"}, "amount: Input should be a valid integer"),
        ({"item": "tea", "amuont": 2}, "amuont: Extra inputs are not permitted"),
        ({"item": None}, "item: Input should be a valid string"),
        ({"item": "tea", "ctx": 1}, "ctx: Extra inputs"),
        ({"item": "tea", "tags": ["a", 1]}, "tags.1: Input should be a valid string"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"price: {problem}") as caught:
        Tool("price", price).checked(arguments)
    assert "it takes (item: str, amount: int = 1, tags: list[str] | None = None)" in str(caught.value)


def test_a_function_that_says_nothing() -> None:
    def silent(item, other=object): ...  # type: ignore[no-untyped-def]

    made = Tool("silent", silent)
    assert made.description == ""
    assert made.schema["properties"] == {"item": {}, "other": {}}
    assert made.checked({"item": 3}) == {"item": 3}


def test_a_schema_belongs_to_whoever_asks() -> None:
    made = Tool("price", price)
    made.schema["properties"].clear()
    assert "item" in made.schema["properties"]


def test_annotations_that_only_a_type_checker_can_see() -> None:
    def pay(ctx: TaskContext, amount: Decimal) -> None: ...

    made = Tool("pay", pay)
    assert made.takes_context
    assert made.checked({"amount": "1.5"}) == {"amount": "1.5"}


def test_parameters_by_any_name() -> None:
    def odd(json: str, schema: str, model_config: str, _private: int, self: int) -> None: ...

    assert [*Tool("odd", odd).schema["properties"]] == ["json", "schema", "model_config", "_private", "self"]


def test_the_decorator() -> None:
    assert tool(price) == Tool("price", price, TIMEOUT, MAX_CHARS)
    assert tool(name="cost", timeout=2, max_chars=9)(price) == Tool("cost", price, 2, 9)


def test_what_no_model_can_call() -> None:
    def starred(*items: str) -> None: ...
    def only_here(item: str, /) -> None: ...
    def open_file(file: Open) -> None: ...

    async def yielding() -> AsyncIterator[int]:
        yield 1

    for make, message in (
        (lambda: Tool("yielding", yielding), "yields, but a model reads one result"),
        (lambda: Tool("my tool", price), "models take names of letters"),
        (lambda: Tool("x" * 65, price), "models take names of letters"),
        (lambda: Tool("price", 3), "'price' is not a function"),  # type: ignore[arg-type]
        (lambda: Tool("price", price, timeout=0), "must be greater than 0"),
        (lambda: Tool("price", price, timeout=float("nan")), "must be greater than 0"),
        (lambda: Tool("starred", starred).schema, "name its parameters"),
        (lambda: Tool("only_here", only_here).schema, "name its parameters"),
        (lambda: Tool("open_file", open_file).schema, "type without a JSON form"),
    ):
        with pytest.raises(UserError, match=message):
            make()


class Open:
    """What no model can write."""


def test_what_a_model_gives_is_read_as_json() -> None:
    class Span(BaseModel):
        model_config = ConfigDict(strict=True)

        days: dict[int, date]

    def plan(span: Span, colours: set[str]) -> None: ...

    plan.__annotations__["span"] = Span
    given = {"span": {"days": {"1": "2026-02-03"}}, "colours": ["red"]}
    found = Tool("plan", plan).checked(given)
    assert found == {"span": Span(days={1: date(2026, 2, 3)}), "colours": {"red"}}
