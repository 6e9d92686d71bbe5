"""What an answer must look like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from hermes_async.core.shape import Shape
from hermes_async.domain.errors import InvalidInput, UserError

DAY = date(2026, 2, 3)


class Choice(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date = Field(serialization_alias="theDay")


def test_an_answer_is_json_and_is_read_as_that() -> None:
    shape = Shape(Choice)
    assert shape.fit({"day": "2026-02-03"}) == Choice(day=DAY)
    assert shape.fit(shape.written(Choice(day=DAY))) == Choice(day=DAY)
    with pytest.raises(InvalidInput, match=r"^day: Input should be a valid date"):
        shape.fit({"day": 3})


@pytest.mark.parametrize("schema", [Callable[[], int], "Nowhere", Exception, 5])
def test_a_type_without_a_schema_is_refused_in_a_sentence(schema: Any) -> None:
    with pytest.raises(UserError, match=r"^the schema of a question is a type with a JSON form, or JSON Sch"):
        Shape(schema)
