"""Tokens: what is minted is verified, and nothing else is."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from hermes_async.domain.errors import ConfigError, InvalidInput, Unauthorized
from hermes_async.relay.auth import mint, verify

SECRET = "x" * 32
OTHER = "y" * 32


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    whole = {"aud": "hermes-relay", "exp": time.time() + 86_400, "sid": ["a"], "sub": "s", **claims}
    return jwt.encode({k: v for k, v in whole.items() if v is not None}, secret, algorithm=algorithm)


def unsigned() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"aud": "hermes-relay", "exp": time.time() + 86_400, "sid": "*", "sub": "s"}
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


def test_a_minted_token_grants_its_sessions_only() -> None:
    grant = verify(SECRET, mint(SECRET, sub="ada", sessions=["a", "b"], ttl=60))
    assert grant.sub == "ada"
    assert (grant.allows("a"), grant.allows("b"), grant.allows("c")) == (True, True, False)
    assert 58 < grant.expires_at - time.time() <= 61


def test_an_operator_may_hear_everything() -> None:
    grant = verify(SECRET, mint(SECRET, sub="ops", sessions="*", ttl=60))
    assert grant.allows("whatever")


def test_a_session_called_star_is_not_everything() -> None:
    grant = verify(SECRET, mint(SECRET, sub="ada", sessions=["*"], ttl=60))
    assert grant.allows("*")
    assert not grant.allows("a")


def test_a_lone_session_id_is_refused_rather_than_split_into_letters() -> None:
    with pytest.raises(InvalidInput, match="list"):
        mint(SECRET, sub="ada", sessions="abc", ttl=60)


@pytest.mark.parametrize("unfit", ["", "x" * 201, "a\nb"])
def test_unfit_session_ids_are_refused(unfit: str) -> None:
    with pytest.raises(InvalidInput):
        mint(SECRET, sub="ada", sessions=[unfit], ttl=60)


@pytest.mark.parametrize("secret", ["", "x" * 31])
def test_a_short_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes") as caught:
        mint(secret, sub="ada", sessions=["a"], ttl=60)
    assert "xxx" not in str(caught.value)
    with pytest.raises(ConfigError):
        verify(secret, signed())


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (None, "needed"),
        ("", "needed"),
        (17, "needed"),
        ({"token": "x"}, "needed"),
        ("garbage", "not valid"),
        ("a.b.c", "not valid"),
        ("é\ud800", "not valid"),
        (signed(OTHER), "not valid"),
        (signed("x" * 64, "HS512"), "not valid"),
        (unsigned(), "not valid"),
        (signed(aud="another"), "not valid"),
        (signed(aud=None), "not valid"),
        (signed(sub=None), "not valid"),
        (signed(exp=None), "not valid"),
        (signed(sid=None), "not valid"),
        (signed(sid="a"), "not valid"),
        (signed(sid=[1]), "not valid"),
        (signed(sid={"*": 1}), "not valid"),
        (signed(exp=time.time() - 1), "expired"),
        (signed(OTHER, exp=time.time() - 1), "not valid"),
    ],
)
def test_every_other_token_is_refused_with_one_sentence(forged: object, why: str) -> None:
    with pytest.raises(Unauthorized, match=why) as caught:
        verify(SECRET, forged)
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
