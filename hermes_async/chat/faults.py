"""What is wrong with a model, in one sentence, and when to try again."""

from __future__ import annotations

from typing import Final

from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
)

#: The longest wait after which the chat tries again by itself: beyond it, a person decides.
LONGEST_WAIT: Final = 120.0
#: Tries in a row, when the model does not say how long to wait.
MOST_TRIES: Final = 4
_PASSING: Final = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError)
_SENTENCES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ModelQuotaExceededError, "the account of the model is used up"),
    (ModelRateLimitError, "the model is asked too often just now"),
    (ModelAuthenticationError, "the model does not accept the key; set another, and begin again"),
    (
        ModelContextWindowExceededError,
        "this is too long for the model, also without what was said before: say less",
    ),
    (ModelNotFoundError, "the server does not know this model; look at `model` and `base_url`"),
    (ModelTimeoutError, "the model does not answer in time"),
    (ModelConnectionError, "the model cannot be reached"),
    (ModelUnavailableError, "the model is overloaded"),
    (ModelServerError, "the model's server has failed"),
)


def sentence(error: Exception) -> str:
    """Return what a person is told; what the server said of it is quoted, shortened."""
    known = next((text for kind, text in _SENTENCES if isinstance(error, kind)), None)
    if known is None and isinstance(error, ModelAPIError):
        known = "the model refuses the request"
    if known is None:
        known = "the model has failed" if isinstance(error, AgentRunError) else "the turn has failed"
        return f"{known}: {_short(f'{type(error).__name__}: {error}')}"
    return f"{known} ({_detail(error)})"


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
    return 2.0 ** (failures - 1) if passes and failures < MOST_TRIES else None


def _detail(error: Exception) -> str:
    if isinstance(error, ModelAuthenticationError):  # some servers say the key again
        return str(getattr(error, "status_code", "refused"))
    if isinstance(error, ModelHTTPError):
        said = error.body.get("message") if isinstance(error.body, dict) else None
        return _short(f"{error.status_code}{f' {said}' if said else ''}")
    cause = error.__cause__ or error
    return _short(str(cause) or type(cause).__name__)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"
