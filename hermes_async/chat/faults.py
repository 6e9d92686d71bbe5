"""What is wrong with a model, in one sentence, and when to try again."""

from __future__ import annotations

from typing import Final

from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelServerError,
    ModelUnavailableError,
)

from hermes_async.adapters.model.sentences import sentence as of_model

#: What is said instead of the same sentence, when the chat has tried again by itself.
STILL: Final = "the model still does not answer"
#: The longest wait after which the chat tries again by itself: beyond it, a person decides.
LONGEST_WAIT: Final = 120.0
#: Tries in a row, when the model does not say how long to wait.
MOST_TRIES: Final = 4
#: Seconds before the second try; twice as long before each further one.
FIRST_WAIT: Final = 1.0
_PASSING: Final = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError)


def sentence(error: Exception, who: str) -> str:
    """Return what a person is told; what the server said of it is quoted, shortened.

    Args:
        error: why a turn has no answer.
        who: the model, in a sentence.
    """
    if isinstance(error, ModelContextWindowExceededError):
        return f"this is too long for {who}, also without what was said before: say less"
    if isinstance(error, AgentRunError):
        return of_model(error, who)
    return f"the turn has failed: {_short(f'{type(error).__name__}: {error}')}"


def again_in(error: Exception, failures: int) -> float | None:
    """Return seconds after which another try may do better; None: only when a person says so.

    Args:
        error: why the model has not answered.
        failures: how many tries have failed in a row, this one among them.
    """
    if not isinstance(error, ModelAPIError):
        return None
    if error.retry_after is not None:
        return max(0.05, error.retry_after) if 0 <= error.retry_after <= LONGEST_WAIT else None
    passes = isinstance(error, _PASSING) and not isinstance(error, ModelQuotaExceededError)
    return FIRST_WAIT * 2 ** (failures - 1) if passes and failures < MOST_TRIES else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"
