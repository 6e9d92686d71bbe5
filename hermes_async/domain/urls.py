"""Which URLs may name the broker, the state and a webhook: a check returns the URL or raises ValueError."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

#: redis: our streams transport; redis+list: kombu's stock one.
BROKER_SCHEMES = ("redis", "rediss", "redis+list", "redisstream", "amqp", "amqps")
STATE_SCHEMES = ("redis", "rediss")
WEB_SCHEMES = ("https", "http")
RELAY_SCHEMES = ("http", "https", "ws", "wss")

_HOOK = "https://example.com/hook"


def broker_url(url: str) -> str:
    """Accept a Redis or RabbitMQ URL."""
    return _checked(url, BROKER_SCHEMES, "redis://localhost:6379/0")


def state_url(url: str) -> str:
    """Accept a Redis URL."""
    return _checked(url, STATE_SCHEMES, "redis://localhost:6379/0")


def web_url(url: str) -> str:
    """Accept an HTTP URL without a password (whether it may be posted to is decided when it is)."""
    if "@" in _split(url, _HOOK).netloc:
        raise ValueError(f"must not name a user or a password; sign with `secret`, and write {_HOOK}")
    return _checked(url, WEB_SCHEMES, _HOOK)


def relay_url(url: str) -> str:
    """Accept the URL of a relay."""
    return _checked(url, RELAY_SCHEMES, "http://localhost:8765")


def service_url(url: str) -> str:
    """Accept the URL of a server of the operator's own, such as a SearXNG."""
    return _checked(url, WEB_SCHEMES, "http://localhost:8080")


def model_url(url: str) -> str:
    """Accept the base URL of a model's server."""
    return _checked(url, WEB_SCHEMES, "http://localhost:8000/v1")


def is_local(url: str) -> bool:
    """Tell whether a server can be reached from this machine only."""
    return (urlsplit(url).hostname or "localhost") in ("localhost", "127.0.0.1", "::1")


def is_rabbitmq(url: str) -> bool:
    """Tell whether the broker is RabbitMQ, which cannot keep the state."""
    return urlsplit(url).scheme in ("amqp", "amqps")


def masked(url: str) -> str:
    """Hide what may be secret in a URL (user, password, query), so that it can be shown."""
    head, slashes, rest = url.rpartition("://")
    if "@" in rest:
        rest = f"***@{rest.rpartition('@')[2]}"
    return f"{head}{slashes}{rest.partition('?')[0]}" if slashes else rest


def _checked(url: str, schemes: tuple[str, ...], example: str) -> str:
    """Return the URL, or raise ValueError with a sentence that follows its key: "must ..."."""
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"must be a URL without spaces, such as {example}")
    parts = _split(url, example)
    if parts.scheme not in schemes:
        raise ValueError(
            f'must begin with {_spoken(schemes)}, not "{masked(url)}"; write one such as {example}'
        )
    if not parts.hostname:
        raise ValueError(f'must name a host, unlike "{masked(url)}"; write one such as {example}')
    return url


def _split(url: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a number, or out of range
    except ValueError:
        raise ValueError(f'must be a URL such as {example}, not "{masked(url)}"') from None
    return parts


def _spoken(schemes: tuple[str, ...]) -> str:
    first = ", ".join(f"{scheme}://" for scheme in schemes[:-1])
    return f"{first} or {schemes[-1]}://"
