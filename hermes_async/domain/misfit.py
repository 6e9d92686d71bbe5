"""What does not fit a type, in one line."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

#: What is wrong with a text that has no form in UTF-8.
HALF_CHARACTER: Final = "it has half a character (a lone surrogate)"
#: Characters of a place; whoever nests deeply, or calls something by a long name, is told where it begins.
_PLACE: Final = 100


def misfit_of(error: ValidationError, *above: str) -> str:
    """Return the first of what is wrong as `place: problem`; no value is shown, since it may be a secret.

    Args:
        error: what pydantic says.
        above: begins the place, for example with the name of a parameter.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, (*above, *problem["loc"])))
    is_half = problem["type"] == "string_unicode"
    said = HALF_CHARACTER if is_half else problem["msg"].removeprefix("Value error, ")
    return f"{place if len(place) <= _PLACE else place[:_PLACE] + '...'}: {said}" if place else said
