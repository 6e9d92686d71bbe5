"""What a model reads of the subagents."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel

from hermes_async.core.catalogue import DESCRIPTION, catalogue
from hermes_async.core.context import TaskContext
from hermes_async.core.subagent import Subagent, subagent


class Size(StrEnum):
    """Of what."""

    SMALL = "small"
    LARGE = "large"


class Part(BaseModel):
    """Of a tree."""

    name: str
    size: Size = Size.SMALL
    parts: list[Part] = []


@subagent
async def nothing(ctx: TaskContext) -> None: ...


@subagent
async def one(ctx: TaskContext, topic: str) -> None: ...


@subagent
async def text_first(ctx: TaskContext, topic: str, depth: int = 1, why: str | None = None) -> None: ...


@subagent
async def two(ctx: TaskContext, topic: str, depth: int) -> None: ...


@subagent
async def number(ctx: TaskContext, seconds: float = 1.0) -> None: ...


@subagent
async def anything(ctx: TaskContext, what, *, how: Any = None) -> None: ...  # type: ignore[no-untyped-def]


@subagent
async def foreign(ctx: TaskContext, kind: type[Size]) -> None: ...


@subagent
async def deep(ctx: TaskContext, tree: Part, by: dict[str, list[int]]) -> None: ...


@pytest.mark.parametrize(
    ("agent", "input"),
    [
        (nothing, "none (an empty text)"),
        (one, "text, the topic"),
        (
            text_first,
            "text, the topic, or JSON of the shape "
            '{"topic": string, "depth"?: integer, "why"?: string | null}',
        ),
        (two, 'JSON of the shape {"topic": string, "depth": integer}'),
        (number, 'JSON of the shape {"seconds"?: number}'),
        (anything, 'JSON of the shape {"what": any, "how"?: any}'),
        (foreign, 'JSON of the shape {"kind": any}'),
        (
            deep,  # a type that contains itself ends
            'JSON of the shape {"tree": {"name": string, "size"?: "small" | "large", "parts"?: [any]}, '
            '"by": object}',
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_shapes_of_input(agent: Subagent[..., Any], input: str) -> None:
    assert catalogue([agent]) == f"- {agent.name}: Input: {input}."


def test_what_it_does_is_cut_and_its_options_count() -> None:
    async def talker(ctx: TaskContext, topic: str) -> None: ...

    talker.__doc__ = "Talk.\n\n  And talk. " + "word " * 1000
    line = catalogue([subagent(talker).options(async_=False)])
    assert line.startswith("- talker: Talk. And talk. word word")
    assert line.endswith("Input: text, the topic. Answers with the result, and you wait for it.")
    assert "\n" not in line and len(line) < DESCRIPTION + 200
