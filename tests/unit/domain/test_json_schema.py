"""The small check of answers: what it says of which value, and that no schema can break it."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from hermes_async.domain.json_schema import misfit


class Region(Enum):
    EU = "eu"
    US = "us"


class Place(BaseModel):
    region: Region
    zone: int = Field(ge=1, le=3)
    tags: list[str] = []
    next: Place | None = None


@pytest.mark.parametrize(
    ("type_", "good", "bad", "told"),
    [
        (str, "x", 1, "the answer is not of type string"),
        (int, 3, True, "not of type integer"),
        (int, 3.0, 3.5, "not of type integer"),
        (float, 3, "3", "not of type number"),
        (bool, False, 0, "not of type boolean"),
        (Region, "eu", "asia", "the answer is none of 'eu', 'us'"),
        (Literal["yes"], "yes", "no", "the answer is not 'yes'"),
        (Literal["yes", "no"], "no", "NO", "none of 'yes', 'no'"),
        (str | None, None, 1, "not of type string and the answer is not of type null"),
        (list[int], [1, 2], [1, "2"], "item 2 of the answer is not of type integer"),
        (tuple[int, str], [1, "a"], ["a", 1], "item 1 of the answer"),
        (dict[str, int], {"a": 1}, {"a": "b"}, "'a' of the answer is not of type integer"),
        (Place, {"region": "eu", "zone": 1}, {"region": "eu"}, "the answer has no 'zone'"),
        (
            Place,
            {"region": "eu", "zone": 3},
            {"region": "eu", "zone": 4},
            "'zone' of the answer is more than 3",
        ),
        (Place, {"region": "us", "zone": 1, "tags": ["a"]}, {"region": "x", "zone": 1}, "none of 'eu'"),
    ],
)
def test_it_agrees_with_pydantic(type_: Any, good: Any, bad: Any, told: str) -> None:
    schema = TypeAdapter(type_).json_schema()
    assert misfit(schema, good) is None
    assert told in str(misfit(schema, bad))
    TypeAdapter(type_).validate_python(good)


def test_a_type_within_itself_is_followed() -> None:
    schema = Place.model_json_schema()
    inner = {"region": "eu", "zone": 9}
    assert "is more than 3" in str(misfit(schema, {"region": "eu", "zone": 1, "next": inner}))


@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        ({"minLength": 2}, "x"),
        ({"maxLength": 2}, "xyz"),
        ({"minItems": 1}, []),
        ({"maxItems": 1}, [1, 2]),
        ({"exclusiveMinimum": 1}, 1),
        ({"exclusiveMaximum": 1}, 1),
        ({"const": 1}, True),
        ({"additionalProperties": False}, {"a": 1}),
        ({"allOf": [{}, {"type": "string"}]}, 1),
        ({"type": ["string", "null"]}, 1),
    ],
)
def test_it_knows_these_words(schema: dict[str, Any], bad: Any) -> None:
    assert misfit(schema, bad)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"pattern": "(a+)+$"},
        {"$ref": "#"},
        {"$ref": "https://elsewhere"},
        {"$ref": 7},
        {"type": "strange"},
        {"type": 7},
        {"enum": 7},
        {"minimum": "x"},
        {"required": 7},
        {"properties": []},
        {"allOf": 7},
        {"items": 7},
        {"prefixItems": 7},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    ],
)
def test_a_schema_that_makes_no_sense_allows_everything(schema: Any) -> None:
    for value in (None, "a" * 50 + "!", 1, [1], {"a": 1}):
        assert misfit(schema, value) is None
