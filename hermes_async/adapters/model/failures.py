"""What a model's failures mean for a task: wait, try again, or never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_ai import exceptions as model_errors

from hermes_async.adapters.model.sentences import sentence
from hermes_async.domain.errors import ConfigError, InvalidInput, ModelFailed, RetryAfter

#: Seconds; a server that asks for a longer wait ends the attempt, so that the gate keeps the time.
LONGEST_WAIT = 60.0
#: Seconds before a server that is busy, and does not say for how long, is asked again; then twice as long.
BUSY_WAIT = 2.0
#: How often one request is sent again when the server fails before it has said anything.
TRIES = 2


def wait_for(error: model_errors.ModelAPIError, tries: int, who: str) -> float:
    """Return after how many seconds the same request makes sense again, within the same attempt.

    Args:
        error: what came of it.
        tries: how often it was sent and came to this kind of end, busy or failed.
        who: the model, in a sentence.

    Raises:
        RetryAfter: the server asks for a longer wait.
        ModelAPIError: it makes none in this attempt.
    """
    busy = is_busy(error)
    if not busy and not (tries <= TRIES and isinstance(error, _PASSING)):
        raise error
    asked = error.retry_after
    if asked is not None and asked > LONGEST_WAIT:
        raise RetryAfter(asked, f"{sentence(error, who)}, and asks to wait {asked:g} s")
    if asked is None:
        return BUSY_WAIT * 2 ** min(tries - 1, 4) if busy else tries / 2
    return max(asked, min(tries - 1, 8) / 4)  # some that say "at once" are busy then, too


def is_busy(error: model_errors.ModelAPIError) -> bool:
    """Tell whether the server works, and only has no time."""
    return isinstance(error, model_errors.ModelRateLimitError)


@contextmanager
def explained(who: str) -> Iterator[None]:
    """Say in one sentence what a model's error means for the attempt that it ends.

    Raises:
        UserError: no retry can cure it.
        ModelFailed: one may.
    """
    try:
        yield
    except _INCURABLE as error:
        raise ConfigError(sentence(error, who)) from error
    except model_errors.ModelRequestRejectedError as error:
        raise InvalidInput(sentence(error, who)) from error
    except model_errors.AgentRunError as error:
        raise ModelFailed(sentence(error, who)) from error


_INCURABLE = (
    model_errors.ModelAuthenticationError,
    model_errors.ModelNotFoundError,
    model_errors.ModelQuotaExceededError,
)
_PASSING = (
    model_errors.ModelConnectionError,
    model_errors.ModelServerError,
    model_errors.ModelUnavailableError,
)
