"""What a caller passes reaches the agent as an equal value, and what it returns reaches the caller so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address, ip_address
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Required, TypeVar, Unpack
from uuid import UUID

import pytest
from annotated_types import Gt, Len
from pydantic import (
    AliasChoices,
    AliasPath,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    PlainSerializer,
    RootModel,
    Tag,
    computed_field,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from hermes_async.adapters.memory import MemoryQueue
from hermes_async.core.context import TaskContext
from hermes_async.core.hermes import Hermes
from hermes_async.core.ports import Store
from hermes_async.core.registry import Registry
from hermes_async.core.subagent import Subagent, subagent
from hermes_async.domain.agent import AgentsConfig
from hermes_async.domain.errors import InvalidInput, TaskFailed
from hermes_async.domain.failure import Reason
from hermes_async.domain.task import Task, TaskStatus

pytestmark = pytest.mark.anyio
T = TypeVar("T")
DAY = date(2026, 2, 3)
NOON = datetime(2026, 2, 3, 12, 0, 0, 5, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Word(StrEnum):
    YES = "yes"


class Plain(BaseModel):
    day: date = DAY


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    day: date
    at: datetime = NOON
    price: Decimal = Decimal("1.50")
    who: UUID = UUID(int=7)
    colours: set[Colour] = Field(default_factory=lambda: {Colour.RED})
    by_day: dict[date, int] = Field(default_factory=lambda: {DAY: 1})
    by_number: dict[int, str] = Field(default_factory=lambda: {1: "one"})
    by_size: dict[Size, Colour] = Field(default_factory=lambda: {Size.BIG: Colour.RED})
    pair: tuple[int, date] = (1, DAY)


class Alias(BaseModel):
    day: date = Field(alias="theDay")


class Swapped(BaseModel):
    one: int = Field(serialization_alias="two")
    two: int = Field(serialization_alias="one")


class Shown(BaseModel):
    day: date = Field(serialization_alias="theDay")
    number: int = Field(default=0, serialization_alias="theNumber")


class Taken(BaseModel):
    day: date = Field(validation_alias=AliasChoices("theDay", AliasPath("days", 0)))


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    the_day: date


class ByName(BaseModel):
    model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)

    day: date = Field(alias="theDay")


class Computing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.number


class Box(BaseModel, Generic[T]):
    inside: T


class Node(BaseModel):
    day: date
    below: list[Node] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    born: date


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    born: date


class Days(RootModel[dict[date, int]]):
    pass


@dataclass
class Data:
    day: date
    by_size: dict[Size, date] = field(default_factory=dict)
    shown: Annotated[int, Field(serialization_alias="show")] = 0


@pydantic_dataclass(config=ConfigDict(strict=True))
class StrictData:
    day: date
    colours: frozenset[Colour]


class Fields(TypedDict):
    day: Required[date]
    price: NotRequired[Annotated[Decimal, Gt(0)]]


class Point(NamedTuple):
    x: int
    day: date


Tagged = Annotated[Cat | Dog, Field(discriminator="kind")]
ByLength = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[date], Tag("days")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "days"),
]
Backwards = Annotated[str, PlainSerializer(lambda text: text[::-1]), BeforeValidator(lambda text: text[::-1])]

VALUES: Sequence[tuple[Any, Any]] = [
    (int, 5),
    (float, 0.1),
    (bool, True),
    (str, "é"),
    (None, None),
    (bytes, b"bytes"),
    (Base64Bytes, b"\xff\x00"),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (date, DAY),
    (datetime, NOON),
    (time, time(3, 4, 5, 6)),
    (timedelta, timedelta(days=1, microseconds=7)),
    (PurePosixPath, PurePosixPath("/a/b")),
    (IPv4Address, ip_address("127.0.0.1")),
    (AnyUrl, AnyUrl("https://example.com/")),
    (Colour, Colour.RED),
    (Size, Size.BIG),
    (Word, Word.YES),
    (Literal["a", 1], 1),
    (set[date], {DAY}),
    (frozenset[Colour], frozenset({Colour.RED})),
    (tuple[int, ...], (1, 2)),
    (tuple[date, str], (DAY, "x")),
    (dict[int, date], {1: DAY}),
    (dict[date, list[int]], {DAY: [1]}),
    (dict[Colour, Colour], {Colour.RED: Colour.RED}),
    (dict[Size, int], {Size.BIG: 1}),
    (dict[UUID, bool], {UUID(int=1): False}),
    (Mapping[int, Sequence[date]], {1: [DAY]}),
    (date | None, None),
    (date | int, DAY),
    (int | list[date], [DAY]),
    (Plain | Strict, Strict(day=DAY)),
    (Tagged, Dog(born=DAY)),
    (list[Tagged], [Dog(born=DAY), Cat(born=DAY)]),
    (ByLength, [DAY]),
    (Backwards, "backwards"),
    (Json[list[int]], [1, 2]),
    (Strict, Strict(day=DAY)),
    (Alias, Alias(theDay=DAY)),
    (Swapped, Swapped(one=1, two=2)),
    (Shown, Shown(day=DAY, number=4)),
    (list[Shown], [Shown(day=DAY, number=4)]),
    (Taken, Taken(theDay=DAY)),
    (Camel, Camel(theDay=DAY)),
    (ByName, ByName(day=DAY)),
    (Computing, Computing(number=2)),
    (Box[date], Box[date](inside=DAY)),
    (Box[dict[int, Colour]], Box[dict[int, Colour]](inside={1: Colour.RED})),
    (Node, Node(day=DAY, below=[Node(day=DAY)])),
    (Days, Days({DAY: 1})),
    (Data, Data(DAY, {Size.BIG: DAY}, 4)),
    (StrictData, StrictData(DAY, frozenset({Colour.RED}))),
    (Fields, {"day": DAY, "price": Decimal(2)}),
    (Point, Point(1, DAY)),
    (Annotated[list[int], Len(1, 3)], [1, 2]),
]


def echo_of(annotation: Any, seen: list[Any]) -> Subagent[..., Any]:
    """An agent that remembers and returns what it was given."""

    async def echo(ctx: TaskContext, value: Any) -> Any:
        seen.append(value)
        return value

    echo.__annotations__ = {"ctx": TaskContext, "value": annotation, "return": annotation}
    return subagent(echo)


def returning(annotation: Any, value: Any) -> Subagent[..., Any]:
    async def report(ctx: TaskContext) -> Any:
        return value

    report.__annotations__ = {"ctx": TaskContext, "return": annotation}
    return subagent(
        report,
    )


class Place:
    """One Hermes over a store, whose tasks run when they are told to."""

    def __init__(self, store: Store, *agents: Subagent[..., Any]) -> None:
        self.hermes = Hermes(Registry(AgentsConfig(), agents), store, MemoryQueue())
        self.session = self.hermes.session()

    async def result(self, agent: Any, *args: Any, **kwargs: Any) -> Any:
        handle = await self.session.dispatch(agent, *args, **kwargs)
        await self.hermes.runner("w1", lease=60.0).run(handle.id)
        return await handle

    async def submitted(self, name: str, input: Any) -> Any:
        handle = await self.session.submit(name, input)
        await self.hermes.runner("w1", lease=60.0).run(handle.id)
        return await handle

    async def task(self) -> Task:
        [task] = await self.session.tasks()
        return task


@pytest.fixture
async def place(store: Store) -> AsyncIterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(*agents: Subagent[..., Any]) -> Place:
        made.append(Place(store, *agents))
        return made[-1]

    yield make
    for each in made:
        await each.hermes.close()


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=[repr(value) for _, value in VALUES])
async def test_a_value_comes_through_as_an_equal_one(
    place: Callable[..., Place], annotation: Any, value: Any
) -> None:
    seen: list[Any] = []
    echo = echo_of(annotation, seen)
    got = await place(echo).result(echo, value)
    assert (got, seen) == (value, [value])
    assert type(got) is type(seen[0]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (Strict, {"day": "2026-02-03", "by_size": {"3": "red"}}, Strict(day=DAY)),
        (Alias, {"theDay": "2026-02-03"}, Alias(theDay=DAY)),
        (Shown, {"day": "2026-02-03"}, Shown(day=DAY)),
        (Taken, {"days": ["2026-02-03"]}, Taken(theDay=DAY)),
        (ByName, {"day": "2026-02-03"}, ByName(day=DAY)),
        (dict[int, date], {"1": "2026-02-03"}, {1: DAY}),
        (Base64Bytes, "/wA=", b"\xff\x00"),
        (Backwards, "abc", "cba"),
        (StrictData, {"day": "2026-02-03", "colours": ["red"]}, StrictData(DAY, frozenset({Colour.RED}))),
        (Json[list[int]], "[1, 2]", [1, 2]),
    ],
)
async def test_what_comes_as_json_is_taken_as_json(
    place: Callable[..., Place], annotation: Any, given: Any, value: Any
) -> None:
    seen: list[Any] = []
    made = place(echo_of(annotation, seen))
    assert await made.submitted("echo", {"value": given}) == value
    assert seen == [value]
    assert (await made.task()).birth.input == {"value": given}


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (Plain, {"day": DAY}, Plain()),
        (Plain, {}, Plain()),
        (Strict, {"day": DAY}, Strict(day=DAY)),
        (date, "2026-02-03", DAY),
        (int, "5", 5),
        (list[int], (1, 2), [1, 2]),
        (list[Shown], (Shown(day=DAY), {"day": DAY}), [Shown(day=DAY), Shown(day=DAY)]),
        (Colour, "red", Colour.RED),
        (set[int], [0, 1, 1], {0, 1}),
        (Any, Alias(theDay=DAY), {"theDay": "2026-02-03"}),
    ],
)
async def test_what_means_a_value_is_as_good(
    place: Callable[..., Place], annotation: Any, given: Any, value: Any
) -> None:
    seen: list[Any] = []
    echo = echo_of(annotation, seen)
    assert await place(echo).result(echo, given) == value
    assert seen == [value]
    report = returning(annotation, given)
    assert await place(report).result(report) == value


async def test_what_others_read_of_a_result_has_its_aliases_and_what_is_computed(
    place: Callable[..., Place],
) -> None:
    class Report(BaseModel):
        day: date = Field(alias="theDay")

        @computed_field  # type: ignore[prop-decorator]
        @property
        def year(self) -> int:
            return self.day.year

    report = returning(Report, Report(theDay=DAY))
    made = place(report)
    assert await made.result(report) == Report(theDay=DAY)
    assert (await made.task()).output == {"theDay": "2026-02-03", "year": 2026}


# -- **kwargs --------------------------------------------------------------------------------------------
class Further(TypedDict):
    day: date
    colour: NotRequired[Colour]


async def test_further_arguments_have_their_type_too(place: Callable[..., Place]) -> None:
    @subagent
    async def days(ctx: TaskContext, first: int, **days: date) -> dict[str, date]:
        return days

    assert await place(days).result(days, 1, a=DAY, b=DAY) == {"a": DAY, "b": DAY}
    with pytest.raises(InvalidInput, match=r"^days: b: Input should be a valid date"):
        await place(days).result(days, 1, b="no day")


async def test_further_arguments_may_be_those_of_a_typed_dict(place: Callable[..., Place]) -> None:
    seen = []

    async def further(ctx: TaskContext, first: int = 1, **more: Any) -> None:
        seen.append(more)

    further.__annotations__["more"] = Unpack[Further]
    agent = subagent(further)
    await place(agent).result(agent, day=DAY, colour=Colour.RED)
    assert seen == [{"day": DAY, "colour": Colour.RED}]
    for wrong, told in (
        ({}, "day: Field required"),
        ({"colour": "red"}, "day: Field required"),
        ({"day": DAY, "dya": 1}, "no argument 'dya'"),
    ):
        with pytest.raises(InvalidInput, match=f"^further: {told}"):
            await place(agent).session.dispatch(agent, **wrong)


# -- results that are wrong ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (
            Strict,
            {"day": "never"},
            "day: Input should be a valid date in the format YYYY-MM-DD, input is too short",
        ),
        (list[Plain], [Plain(), 3], "1: Input should be an object"),
        (None, 5, "Input should be null"),
        (int, "many", "Input should be a valid integer, unable to parse string as an integer"),
        (Annotated[int, Gt(3)], 2, "Input should be greater than 3"),
    ],
)
async def test_a_result_of_another_type_fails_the_task_in_one_sentence(
    place: Callable[..., Place], annotation: Any, value: Any, told: str
) -> None:
    report = returning(annotation, value)
    made = place(report)
    with pytest.raises(TaskFailed, match="the result of report does not fit"):
        await made.result(report.options(retry_limit=3))
    task = await made.task()
    assert (task.status, task.reason, task.attempt) == (TaskStatus.FAILED, Reason.ERROR, 1)
    assert task.error
    assert (task.error.type, task.error.traceback) == ("InvalidInput", "")
    assert task.error.message == f"the result of report does not fit: {told}"


async def test_a_result_without_a_type_is_not_checked(place: Callable[..., Place]) -> None:
    @subagent
    async def anything(ctx: TaskContext):  # type: ignore[no-untyped-def]
        return {"day": DAY}

    made = place(anything)
    assert await made.result(anything) == {"day": "2026-02-03"}
    assert await place(returning(Any, 3)).result("report") == 3
