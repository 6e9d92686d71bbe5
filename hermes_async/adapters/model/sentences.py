"""What is wrong with a model, in one sentence that names it, its server, and the cure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from pydantic_ai import exceptions as errors
from pydantic_ai.models import Model

from hermes_async.domain.urls import masked

#: Characters of what a server says that are quoted.
QUOTED: Final = 300

#: How pydantic-ai puts it when there is neither a text nor a call of a tool, several times in a row.
_SILENCE: Final = "Exceeded maximum output retries"

#: What a model does, and the cure if there is one; the first that fits.
_SENTENCES: Final[tuple[tuple[type[errors.AgentRunError], str, str], ...]] = (
    (errors.ModelQuotaExceededError, "takes no more", "the account has no quota or credit left"),
    (errors.ModelRateLimitError, "is busy", ""),
    (errors.ModelAuthenticationError, "refuses the key", "check that it is valid here"),
    (errors.ModelNotFoundError, "is not there", "check `model` and `base_url`"),
    (errors.ModelRequestRejectedError, "refuses the request", ""),
    (errors.ModelTimeoutError, "does not answer in time", ""),
    (errors.ModelConnectionError, "cannot be reached", "check `base_url`"),
    (errors.ModelUnavailableError, "is overloaded", ""),
    (errors.IncompleteToolCall, "has reached its limit of tokens in a tool call", "raise `max_tokens`"),
    (errors.OutputTokenLimitExceeded, "has reached its limit of tokens in silence", "raise `max_tokens`"),
    (errors.ContentFilterError, "says nothing", "a content filter has stopped it"),
    (errors.UnexpectedModelBehavior, "gives no answer of use", "check `model` and `base_url`"),
    (errors.AgentRunError, "has failed", ""),
)
#: Of these nothing is quoted: it may contain the key, or add nothing.
_UNQUOTED: Final = (
    errors.ModelAuthenticationError,
    errors.ModelTimeoutError,
    errors.OutputTokenLimitExceeded,
    errors.ContentFilterError,
)


def named(model: Model) -> str:
    """Return what a model is called in a sentence, and where it is."""
    url = masked(model.base_url or "").rstrip("/")
    return f"model {model.model_name!r}" + (f" at {url}" if url else "")


def sentence(error: errors.AgentRunError, who: str) -> str:
    """Return all that helps: `who` is the model, by `named`."""
    status = getattr(error, "status_code", None)
    what, cure = _what(error)
    said = "" if isinstance(error, _UNQUOTED) else _said(error)
    return "".join(
        (
            who,
            f" (HTTP {status})" if status else "",
            f" {what}",
            f" ({said})" if said else "",
            f": {cure}" if cure else "",
        )
    )


def brief(error: errors.AgentRunError) -> str:
    """Return what fits on a status line."""
    return f"the model {_what(error)[0]}"


def _what(error: errors.AgentRunError) -> tuple[str, str]:
    if type(error) is errors.ModelConnectionError and error.phase == "read":
        return "has broken off the connection", ""
    return next((what, cure) for kind, what, cure in _SENTENCES if isinstance(error, kind))


def _said(error: errors.AgentRunError) -> str:
    """Return what the server says, or the network; else what pydantic-ai does, in its first sentence."""
    text: object
    if isinstance(error, errors.ModelConnectionError):
        text = _network(error)
    elif isinstance(error, errors.ModelHTTPError):
        text = error.body.get("message") if isinstance(error.body, dict) else error.body
    else:
        text = error.message.partition(". ")[0]
        text = "it says nothing, however often it is asked" if text.startswith(_SILENCE) else text
    line = " ".join(str(text or "").split())
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"


def _network(error: BaseException) -> str:
    """Return what the operating system says; a library may repeat a header, and with it the key."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno) if isinstance(each, ConnectionError) else each.strerror or ""
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
