"""One message: as text on its stream, with its delivery tag, and as kombu hands it on."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from json import JSONDecoder
from typing import Any, NamedTuple
from uuid import uuid4

import kombu.serialization
import kombu.transport.virtual
import kombu.utils.json
from pydantic_core import from_json

__all__ = [
    "DEFAULT_PRIORITY",
    "FAILURES",
    "FIELD",
    "PRIORITIES",
    "Line",
    "Message",
    "dead_letter_key",
    "decode_json",
    "encode_message",
    "stream_key",
]

#: The stream field that carries the message text.
FIELD = "m"
#: The stream field that counts failed deliveries; an entry without it has never been claimed before.
FAILURES = "n"
#: Messages published without a priority are in the middle, on the stream that bears the queue's plain name.
DEFAULT_PRIORITY = 5
#: In the order in which they are claimed.
PRIORITIES = tuple(range(9, -1, -1))

#: Kombu says that it is typed, and is not.
kombu_json: Any = kombu.utils.json
virtual: Any = kombu.transport.virtual
serializers: Any = kombu.serialization.registry

_JSON = "application/json"
_to_json = kombu_json.JSONEncoder().encode
_from_json = JSONDecoder().decode


class Line(NamedTuple):
    """One queue at one priority: what one stream holds."""

    queue: str
    priority: int

    def tag(self, entry_id: str) -> str:
        """The delivery tag of an entry on this line; everything about it can be read back from the tag."""
        return f"{entry_id}@{self.priority}@{self.queue}"

    @classmethod
    def of_tag(cls, tag: str) -> tuple[Line, str]:
        """The line and the entry id that a delivery tag names."""
        entry_id, priority, queue = tag.split("@", 2)
        return cls(queue, int(priority)), entry_id


def stream_key(queue: str, priority: int = DEFAULT_PRIORITY) -> str:
    """The stream on which messages of this queue and priority (0-9, 9 is claimed first) wait."""
    step = min(max(priority, 0), 9)
    return queue if step == DEFAULT_PRIORITY else f"{queue}:{step}"


def dead_letter_key(queue: str) -> str:
    """The stream that keeps messages which were delivered too often."""
    return f"{queue}.dead"


def decode_json(text: str | bytes) -> Any:
    """Do what kombu's `loads` does, which makes a decoder for each text and calls a hook for each object."""
    plain = text.decode() if isinstance(text, bytes) else text
    if '"__type__"' in plain:  # a value that JSON does not know, such as a datetime
        return kombu_json.loads(plain)
    try:
        return from_json(plain)  # knows the strings that all messages share, and keeps each of them once
    except ValueError:
        return _from_json(plain)  # which takes what is no JSON by the letter, such as half a surrogate pair


class Message(virtual.Message):  # type: ignore[misc]
    """A message whose JSON body is decoded fast, unless somebody has given kombu another decoder."""

    def _decode(self) -> Any:
        is_ours = self.content_type == _JSON and serializers._decoders.get(_JSON) is kombu_json.loads
        if not is_ours or not self.body or not (self.accept is None or _JSON in self.accept):
            return super()._decode()
        try:
            return decode_json(self.body)
        except ValueError:
            return super()._decode()  # which tells it in its own way


def encode_message(
    body: bytes,
    *,
    queue: str,
    headers: Mapping[str, Any],
    correlation_id: str,
    priority: int = DEFAULT_PRIORITY,
    reply_to: str = "",
) -> str:
    """The text kombu would write for a JSON body: XADD it to `stream_key(queue, priority)` under `FIELD`."""
    text: str = _to_json(
        {
            "body": b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": correlation_id,
                "reply_to": reply_to,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )
    return text
