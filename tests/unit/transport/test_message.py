"""The fast decoder makes of a message what kombu's own would make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import redis
from kombu import serialization
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils import json as kombu_json

from hermes_async.transport.message import FIELD, decode_json
from hermes_async.transport.streams import encode_message
from tests.support.inbox import Connect, Inbox, publish

UNUSUAL = {
    "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "sum": Decimal("1.50"),
    "id": UUID(int=7),
    "raw": b"\xff",
    "deep": [{"text": 'a "__type__" in words ✓'}],
}


@pytest.mark.parametrize("value", [None, 0, "", "✓", [1, {"a": None}], {"__type__": 1}, UNUSUAL])
def test_json_is_what_kombu_makes_of_it(value: Any) -> None:
    text = kombu_json.dumps(value)
    assert decode_json(text) == decode_json(text.encode()) == kombu_json.loads(text) == value


def test_unusual_values_arrive_in_headers_and_body(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), UNUSUAL, headers={"when": UNUSUAL["when"]})
    inbox = Inbox(connect())
    assert inbox.drain(1) == [UNUSUAL]
    assert inbox.messages[0].headers["when"] == UNUSUAL["when"]


@pytest.fixture
def own_decoder() -> Iterator[None]:
    serialization.register("json", json.dumps, lambda text: ["mine", json.loads(text)], "application/json")
    yield
    serialization.register_json()


def test_a_decoder_that_somebody_has_registered_is_used(
    connect: Connect, client: redis.Redis, own_decoder: None
) -> None:
    publish(connect(), 1)
    assert Inbox(connect()).drain(1) == [["mine", 1]]


def test_a_body_that_is_no_json_is_told_by_kombu(connect: Connect, client: redis.Redis) -> None:
    client.xadd("jobs", {FIELD: encode_message(b"{broken", queue="jobs", headers={}, correlation_id="c")})
    inbox = Inbox(connect())
    with pytest.raises(DecodeError):
        inbox.drain(1)
    assert len(inbox.messages) == 1


def test_what_is_not_accepted_is_not_decoded(connect: Connect, client: redis.Redis) -> None:
    publish(connect(), 1)
    inbox = Inbox(connect())
    inbox.consumer.accept = {"application/x-yaml"}
    with pytest.raises(ContentDisallowed):
        inbox.drain(1)
