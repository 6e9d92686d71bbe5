"""Tokens: signed words that name the sessions which somebody may hear."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Final, Literal

import jwt

from hermes_async.core.ids import checked_session_id
from hermes_async.domain.errors import ConfigError, InvalidInput, Unauthorized

AUDIENCE: Final = "hermes-relay"
#: Bytes; a shorter key can be guessed from a token.
SHORTEST_SECRET: Final = 32
#: The scope of a token that allows to hear, not to command; without a scope it allows both.
HEAR: Final = "hear"
_ALGORITHM: Final = "HS256"
_REQUIRED: Final = ["aud", "exp", "sid", "sub"]


@dataclass(frozen=True)
class Grant:
    """What a token allows: to hear some sessions, or all of them, and to command there, until a Unix time."""

    sub: str
    sessions: frozenset[str] | Literal["*"]
    expires_at: float
    #: To hear only.
    read_only: bool = False
    #: Names the token, to revoke it; None: it was made without a name.
    jti: str | None = None

    def allows(self, session_id: str) -> bool:
        """Tell whether the session may be heard."""
        return self.sessions == "*" or session_id in self.sessions


def mint(
    secret: str, *, sub: str, sessions: Sequence[str] | Literal["*"], ttl: float, read_only: bool = False
) -> str:
    """Return a signed token.

    Args:
        secret: the relay's, at least 32 bytes.
        sub: for whom it is; shown in logs.
        sessions: ids of the sessions; the bare string "*" (not a list with it) means all, for operators.
        ttl: seconds until it expires.
        read_only: it allows to hear, not to command.

    Raises:
        ConfigError: the secret is too short.
        InvalidInput: a session id is unfit, or `sessions` is one id instead of a list.
    """
    if isinstance(sessions, str) and sessions != "*":
        raise InvalidInput('sessions must be a list of session ids, or "*" for all of them')
    listed = "*" if sessions == "*" else [checked_session_id(session_id) for session_id in sessions]
    claims = {
        "aud": AUDIENCE,
        "exp": math.ceil(time.time() + ttl),
        "jti": token_hex(8),
        "sid": listed,
        "sub": sub,
        **({"scope": HEAR} if read_only else {}),
    }
    return jwt.encode(claims, checked_secret(secret), algorithm=_ALGORITHM)


def verify(secret: str, token: object) -> Grant:
    """Return what a token allows.

    Raises:
        ConfigError: the secret is too short.
        Unauthorized: the token is missing, expired, or not one of ours.
    """
    if not token or not isinstance(token, str):
        raise Unauthorized('a token is needed: send it as auth={"token": ...} when connecting')
    key = checked_secret(secret)
    try:
        return _grant(
            jwt.decode(token, key, algorithms=[_ALGORITHM], audience=AUDIENCE, options={"require": _REQUIRED})
        )
    except jwt.ExpiredSignatureError:
        raise Unauthorized("the token has expired; ask for a new one") from None
    except (jwt.PyJWTError, ValueError, ArithmeticError, RecursionError):
        raise Unauthorized("the token is not valid for this relay") from None


def remaining(secret: str, token: str) -> tuple[str, float]:
    """Return a token's name and the seconds for which it is still valid.

    Raises:
        Unauthorized: it is not one of ours, or has expired.
        InvalidInput: it has no name.
    """
    grant = verify(secret, token)
    if grant.jti is None:
        raise InvalidInput("this token has no `jti` by which it could be revoked: change the relay's secret")
    return grant.jti, max(1.0, grant.expires_at - time.time())


def checked_secret(secret: str) -> str:
    """Return a secret that is long enough to sign with.

    Raises:
        ConfigError: it is too short.
    """
    if len(secret.encode("utf-8", "replace")) < SHORTEST_SECRET:
        raise ConfigError(
            f"the relay's secret must have at least {SHORTEST_SECRET} bytes; "
            'make one with python -c "import secrets; print(secrets.token_hex(32))"'
        )
    return secret


def _grant(claims: dict[str, Any]) -> Grant:
    listed = claims["sid"]
    if listed != "*" and not (isinstance(listed, list) and all(isinstance(s, str) for s in listed)):
        raise ValueError("sid must be a list of session ids")
    scope, jti = claims.get("scope"), claims.get("jti")
    if scope not in (None, HEAR) or not (jti is None or isinstance(jti, str)):
        raise ValueError("an unknown scope, or no name")
    return Grant(
        sub=claims["sub"],
        sessions="*" if listed == "*" else frozenset(listed),
        expires_at=float(claims["exp"]),
        read_only=scope == HEAR,
        jti=jti,
    )
