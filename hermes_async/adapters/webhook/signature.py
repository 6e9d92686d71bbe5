"""The headers of Standard Webhooks 1.0 (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from hermes_async.domain.secret import signing_key


def headers(secrets: Sequence[str], webhook_id: str, at: float, body: bytes) -> dict[str, str]:
    """Return what goes with a body: a signature by each secret, so that a receiver may know any of them.

    Args:
        secrets: `whsec_…` or plain text; without any, nothing is signed.
        webhook_id: the same at every try, by which a receiver recognises what it has had.
        at: Unix seconds of this try.
        body: the very bytes that are posted.
    """
    found = {"webhook-id": webhook_id, "webhook-timestamp": str(int(at))}
    if secrets:
        signed = f"{webhook_id}.{int(at)}.".encode() + body
        found["webhook-signature"] = " ".join(_signature(secret, signed) for secret in secrets)
    return found


def _signature(secret: str, signed: bytes) -> str:
    digest = hmac.digest(signing_key(secret), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
