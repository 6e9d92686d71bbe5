"""Secrets that sign webhooks: a check returns them or raises ValueError, which never shows them."""

from __future__ import annotations

import base64
import binascii
from typing import Final

PREFIX: Final = "whsec_"
#: Bytes, as Standard Webhooks has it.
SHORTEST: Final = 24


def signing_secrets(said: object) -> str | tuple[str, ...]:
    """Accept one secret, or a list of them."""
    if isinstance(said, str):
        signing_key(said)
        return said
    if not isinstance(said, list | tuple) or not said:
        raise ValueError("must be text in quotes, or a list of texts, the newest first")
    for one in said:
        signing_key(one)
    return tuple(said)


def signing_key(secret: object) -> bytes:
    """Return the bytes that sign: base64 after `whsec_`, any other text as it is.

    Raises:
        ValueError: it is no text, no base64, or shorter than 24 bytes.
    """
    if not isinstance(secret, str):
        raise ValueError("must be text in quotes, or a list of texts, the newest first")
    try:
        key = _decoded(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()
    except (binascii.Error, ValueError):  # also what is not ASCII, and a lone surrogate
        raise ValueError(f"must be base64 after `{PREFIX}`; {_CURE}") from None
    if len(key) < SHORTEST:
        raise ValueError(f"must have at least {SHORTEST} bytes; {_CURE}")
    return key


def _decoded(text: str) -> bytes:
    padding = "=" * (-len(text) % 4)
    return base64.b64decode(text + padding, validate=True)


_CURE: Final = (
    'make one with python -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)
