"""What does not fit a type, in one line."""

from __future__ import annotations

from pydantic import ValidationError


def misfit_of(error: ValidationError, *above: str) -> str:
    """Return the first of what is wrong as `place: problem`; no value is shown, since it may be a secret.

    Args:
        error: what pydantic says.
        above: begins the place, for example with the name of a parameter.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, (*above, *problem["loc"])))
    return f"{place}: {problem['msg']}" if place else problem["msg"]
