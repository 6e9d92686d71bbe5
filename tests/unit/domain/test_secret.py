"""Secrets that sign: which are fit, and that no message shows one."""

from __future__ import annotations

import base64

import pytest

from hermes_async.domain.agent import Webhook
from hermes_async.domain.secret import signing_key, signing_secrets

GOOD = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def test_base64_after_the_prefix_and_any_other_text_as_it_is() -> None:
    assert signing_key(GOOD) == bytes(range(24))
    assert signing_key("whsec_" + base64.b64encode(b"x" * 25).decode().rstrip("=")) == b"x" * 25
    assert signing_key("plain text of enough bytes ❄") == "plain text of enough bytes ❄".encode()


@pytest.mark.parametrize(
    "secret",
    ["", "hush hush", "whsec_", "whsec_" + "!" * 40, "whsec_aGlkZGVu", "hush" * 7 + "\ud800", 12345, None],
)
def test_unfit_secrets_are_refused_and_not_shown(secret: object) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        signing_secrets(secret)
    assert not any(part in str(caught.value) for part in ("hush", "aGlkZGVu", "12345"))


@pytest.mark.parametrize("secrets", [[], ["short"], [GOOD, 7], {"a": GOOD}])
def test_every_one_of_a_list_is_checked(secrets: object) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        signing_secrets(secrets)


def test_one_or_several() -> None:
    assert Webhook(url="https://example.com").secrets == ()
    assert Webhook(url="https://example.com", secret=GOOD).secrets == (GOOD,)
    several = Webhook.model_validate({"url": "https://example.com", "secret": [GOOD, "x" * 24]})
    assert several.secrets == (GOOD, "x" * 24)
    assert GOOD not in repr(several) + several.model_dump_json() + str(several.model_dump())
