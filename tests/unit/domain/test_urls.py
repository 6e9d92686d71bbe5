"""Which URLs are accepted, and that no message shows a password."""

from __future__ import annotations

import pytest

from hermes_async.domain.urls import broker_url, is_rabbitmq, masked, relay_url, state_url, web_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://redis.default:6379/0",
        "rediss://joe:secret@[::1]:6379/0",
        "rediss://h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=false",
        "unix:///run/redis.sock",
        "unix://joe:secret@/run/redis.sock?db=5",
        "redis+list://h",
        "rediss+list://h/0?ssl_certfile=c&ssl_keyfile=k",
        "redisstream://h",
        "amqp://guest:guest@h:5672//",
        "amqps://h",
    ],
)
def test_brokers(url: str) -> None:
    assert broker_url(url) == url


def test_rabbitmq() -> None:
    assert is_rabbitmq("amqps://h")
    assert not is_rabbitmq("redis://h")


@pytest.mark.parametrize(
    "url", ["", "redis", "redis://", "redis://h:99999", "redis://[::1", "redis://a b", "amqp://h"]
)
def test_not_a_state(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        state_url(url)


def test_the_web() -> None:
    assert web_url("https://example.com/hook")
    assert relay_url("wss://example.com")
    with pytest.raises(ValueError, match="must begin with https:// or http://"):
        web_url("wss://example.com")


@pytest.mark.parametrize("url", ["https://joe:hush@h/x", "https://hush@h", "https://@h", "https://h:443@x"])
def test_a_webhook_has_no_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must not name a user") as caught:
        web_url(url)
    assert "hush" not in str(caught.value)
    assert web_url("https://h/@x?y=@z")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://joe:p@ss@h:1/0?password=x", "redis://***@h:1/0"),
        ("redis://h/0", "redis://h/0"),
        ("joe:pass@h", "***@h"),
        ("what?", "what?"),
    ],
)
def test_a_shown_url_has_no_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown
