"""What a model's failures mean, by the errors that pydantic-ai makes of the wire."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai import exceptions as errors

from hermes_async.adapters.model.failures import LONGEST_WAIT, explained, wait_for
from hermes_async.domain.errors import ConfigError, InvalidInput, ModelFailed, RetryAfter

WHO = "model 'm' at there"


def http(kind: Any, status: int, **more: Any) -> errors.ModelHTTPError:
    return errors.ModelHTTPError.for_category(kind, status_code=status, model_name="m", **more)


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (http(errors.ModelRateLimitError, 429), [2, 4, 8, 16, 32, 32]),
        (http(errors.ModelRateLimitError, 429, headers={"Retry-After": "7"}), [7, 7, 7]),
        (http(errors.ModelRateLimitError, 429, headers={"retry-after-ms": "1500"}), [1.5]),
        (http(errors.ModelRateLimitError, 429, headers={"Retry-After": "0"}), [0, 0.25, 0.5]),
        (http(errors.ModelRateLimitError, 429, headers={"retry-after-ms": "20"}), [0.02, *[0.25, 0.5, 0.75]]),
        (http(errors.ModelUnavailableError, 503), [0.5, 1]),
        (http(errors.ModelOverloadedError, 529, headers={"Retry-After": "3"}), [3, 3]),
        (errors.ModelConnectionError("m", "reset"), [0.5, 1]),
    ],
)
def test_how_long_the_same_request_waits(error: errors.ModelAPIError, waits: list[float]) -> None:
    assert [wait_for(error, tries, WHO) for tries in range(1, len(waits) + 1)] == waits


@pytest.mark.parametrize("kind", [errors.ModelRateLimitError, errors.ModelUnavailableError])
def test_a_longer_wait_is_the_gates(kind: Any) -> None:
    with pytest.raises(
        RetryAfter, match=r"^model 'm' at there \(HTTP 429\) is .*, and asks to wait 3600 s$"
    ) as asked:
        wait_for(http(kind, 429, headers={"Retry-After": "3600"}), 1, WHO)
    assert asked.value.seconds == 3600
    assert wait_for(http(kind, 429, headers={"Retry-After": f"{LONGEST_WAIT:g}"}), 1, WHO) == LONGEST_WAIT


def test_a_server_that_stays_down_fails_the_attempt() -> None:
    error = http(errors.ModelServerError, 500)
    with pytest.raises(errors.ModelServerError):
        wait_for(error, 3, WHO)
    with (
        pytest.raises(ModelFailed, match=r"^model 'm' at there \(HTTP 500\) has failed$"),
        explained(WHO),
    ):
        raise error


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (http(errors.ModelAuthenticationError, 401), ConfigError, "refuses the key"),
        (http(errors.ModelNotFoundError, 404), ConfigError, "check `model` and `base_url`"),
        (http(errors.ModelQuotaExceededError, 429), ConfigError, "no quota or credit left"),
        (
            http(errors.ModelContextWindowExceededError, 400, body={"message": "too\n long"}),
            InvalidInput,
            "refuses the request (too long)",
        ),
        (http(errors.ModelRequestRejectedError, 422, body="x" * 9_000), InvalidInput, "x" * 299),
    ],
)
def test_what_no_retry_cures_is_one_sentence(error: errors.ModelAPIError, kind: Any, told: str) -> None:
    with pytest.raises(kind) as raised, explained(WHO):
        wait_for(error, 1, WHO)
    sentence = str(raised.value)
    assert told in sentence
    assert sentence.startswith("model 'm' at there (HTTP ")
    assert "\n" not in sentence
    assert len(sentence) < 600
