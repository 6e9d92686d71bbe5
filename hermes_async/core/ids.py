"""Ids: unguessable, short enough to paste, and telling where a task's keys live."""

from __future__ import annotations

import re
import secrets
from zlib import crc32

from hermes_async.domain.errors import InvalidInput, UnknownTask

#: Over how many partitions the sessions are spread; one session's keys share one. Fixed for a state's life.
PARTITIONS = 16
#: Crockford's base 32: no letter that a reader takes for a digit.
_ALPHABET = b"0123456789abcdefghjkmnpqrstvwxyz"
_LETTER_OF_BYTE = _ALPHABET * (256 // len(_ALPHABET))
_LONGEST = 200
_TASK_ID = re.compile(r"t(\d\d)-[\w-]{1,80}", re.ASCII)


def partition(session_id: str) -> int:
    """Return the partition of a session."""
    return crc32(session_id.encode()) % PARTITIONS


def partition_of_task(task_id: str) -> int:
    """Return the partition that a task id names.

    Raises:
        UnknownTask: that is no task id.
    """
    found = _TASK_ID.fullmatch(task_id)
    if not found or int(found[1]) >= PARTITIONS:
        raise UnknownTask(f"{task_id[:80]!r} is not a task id: those look like t07-4k9...")
    return int(found[1])


def new_task_id(session_id: str) -> str:
    """Return a fresh id: the session's partition and 130 random bits."""
    return f"t{partition(session_id):02d}-{_random()}"


def new_session_id() -> str:
    """Return a fresh session id."""
    return f"s-{_random()}"


def new_traceparent() -> str:
    """Return a new W3C trace context, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def checked_session_id(session_id: str) -> str:
    """Return a session id that is fit for a key.

    Raises:
        InvalidInput: it is empty, too long, or has unprintable characters.
    """
    return _checked("a session id", session_id)


def checked_idempotency_key(key: str) -> str:
    """Return an idempotency key that is fit for a key; the same rule and error."""
    return _checked("an idempotency key", key)


def _checked(what: str, text: str) -> str:
    if not isinstance(text, str) or not text or len(text) > _LONGEST or not text.isprintable():
        raise InvalidInput(f"{what} is a text of 1 to {_LONGEST} printable characters, not {text!r:.42}")
    return text


def _random() -> str:
    return secrets.token_bytes(26).translate(_LETTER_OF_BYTE).decode()
