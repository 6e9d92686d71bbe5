"""Signatures, as the reference implementation of Standard Webhooks verifies them."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hermes_async.adapters.webhook.signature import headers

OLD, NEW = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
BODY = '{"type":"task.completed","data":{"output":"❄ .,"}}'.encode()


@pytest.mark.parametrize("receivers", [OLD, NEW])
def test_during_a_rotation_either_secret_verifies(receivers: str) -> None:
    sent = headers((NEW, OLD), "t01-abc:webhook", time.time(), BODY)
    assert Webhook(receivers).verify(BODY, sent)["type"] == "task.completed"
    assert len(sent["webhook-signature"].split()) == 2


def test_a_secret_of_plain_text_is_its_bytes() -> None:
    plain = "a secret of plain text, long enough"
    Webhook(plain.encode()).verify(BODY, headers((plain,), "1", time.time(), BODY))


def test_what_was_changed_or_is_old_does_not_verify() -> None:
    sent = headers((NEW,), "1", time.time(), BODY)
    for body, said in (
        (BODY + b" ", sent),
        (BODY, {**sent, "webhook-id": "2"}),
        (BODY, headers((NEW,), "1", time.time() - 400, BODY)),
        (BODY, headers((OLD,), "1", time.time(), BODY)),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(NEW).verify(body, said)


def test_without_a_secret_nothing_is_signed() -> None:
    assert headers((), "1", 12.9, BODY) == {"webhook-id": "1", "webhook-timestamp": "12"}
