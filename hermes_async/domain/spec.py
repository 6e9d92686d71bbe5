"""What every part of the configuration is made of: strict models, and values that say what they must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field


@dataclass(frozen=True)
class Must:
    """What a value of this type must be, in words: error messages are built from it."""

    be: str


Seconds = Annotated[float, Field(gt=0, le=31_536_000), Must("a number of seconds greater than 0")]
Switch = Annotated[bool, Must("true or false")]
Count = Annotated[int, Field(ge=1, le=1_000_000_000), Must("a whole number greater than 0")]
Text = Annotated[str, Field(min_length=1), Must("text")]
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}$"),
    Must("a name of letters, digits, `_`, `-` and `.` that begins with a letter"),
]
#: The same, or nothing: loading fills it in.
ResolvedName = Annotated[
    str,
    Field(pattern=r"^([A-Za-z_][A-Za-z0-9_.-]{0,99})?$"),
    Must("a name of letters, digits, `_`, `-` and `.` that begins with a letter"),
]
Names = Annotated[tuple[Text, ...], FailFast()]


class Spec(BaseModel):
    """A frozen part of the configuration: strict types, no unknown keys, compact JSON, discreet errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,
    )

    def over(self, base: Self) -> Self:
        """Lay this over `base`: what was said here wins, the rest is as `base` has it."""
        return base.model_copy(update={field: getattr(self, field) for field in self.model_fields_set})
