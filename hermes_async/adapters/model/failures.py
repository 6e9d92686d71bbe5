"""What a model's failures mean for a task: wait, try again, or never."""

from __future__ import annotations

from pydantic_ai import exceptions as model_errors

from hermes_async.domain.errors import ConfigError, InvalidInput, RetryAfter

#: Seconds; a server that asks for a longer wait ends the attempt, so that the gate keeps the time.
LONGEST_WAIT = 60.0
#: Seconds before a server that is busy, and does not say for how long, is asked again; then twice as long.
BUSY_WAIT = 2.0
#: How often one request is sent again when the server fails before it has said anything.
TRIES = 2


def wait_for(error: model_errors.ModelAPIError, tries: int) -> float:
    """Return after how many seconds the same request makes sense again, within the same attempt.

    Args:
        error: what came of it.
        tries: how often it was sent and came to this kind of end, busy or failed.

    Raises:
        HermesError: it makes none; the error says what it means for the attempt.
        ModelAPIError: the attempt has failed, and may be retried.
    """
    busy = is_busy(error)
    if not busy and not (tries <= TRIES and isinstance(error, _PASSING)):
        raise meaning(error)
    asked = error.retry_after
    if asked is not None and asked > LONGEST_WAIT:
        raise RetryAfter(asked, f"{_who(error)} asks to wait {asked:g} s")
    if asked is None:
        return BUSY_WAIT * 2 ** min(tries - 1, 4) if busy else tries / 2
    return max(asked, min(tries - 1, 8) / 4)  # some that say "at once" are busy then, too


def is_busy(error: model_errors.ModelAPIError) -> bool:
    """Tell whether the server works, and only has no time."""
    return isinstance(error, model_errors.ModelRateLimitError)


def meaning(error: model_errors.ModelAPIError) -> Exception:
    """Return what an error means for an attempt that cannot go on: a UserError if no retry can cure it."""
    if isinstance(error, model_errors.ModelAuthenticationError):
        return ConfigError(f"{_who(error)} refuses the key: check that it is valid here")
    if isinstance(error, model_errors.ModelNotFoundError):
        return ConfigError(f"{_who(error)} is not there: check `model` and `base_url`")
    if isinstance(error, model_errors.ModelQuotaExceededError):
        return ConfigError(f"{_who(error)} takes no more: the account has no quota or credit left")
    if isinstance(error, model_errors.ModelRequestRejectedError):
        return InvalidInput(f"{_who(error)} refuses the request: {_said(error)}")
    return error


_PASSING = (
    model_errors.ModelConnectionError,
    model_errors.ModelServerError,
    model_errors.ModelUnavailableError,
)


def _who(error: model_errors.ModelAPIError) -> str:
    status = getattr(error, "status_code", None)
    return f"model {error.model_name!r}" + (f" (HTTP {status})" if status else "")


def _said(error: model_errors.ModelAPIError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return " ".join(str(message or error).split())[:500]
