"""Which URLs may name the broker, the state and a webhook: a check returns the URL or raises ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

#: Redis over TCP, over TLS, and over a socket file.
STATE_SCHEMES = ("redis", "rediss", "unix")
#: The same as a broker over our streams transport or, with `+list`, over kombu's stock one.
BROKER_SCHEMES = (
    *STATE_SCHEMES,
    *(f"{scheme}+list" for scheme in STATE_SCHEMES),
    "redisstream",
    "amqp",
    "amqps",
)
WEB_SCHEMES = ("https", "http")
RELAY_SCHEMES = ("http", "https", "ws", "wss")

_HOOK = "https://example.com/hook"
_REDIS = "redis://localhost:6379/0"
_ENCODED = "in which `@ : / ? # %` are written as `%40 %3A %2F %3F %23 %25`"

#: How a password is written that would end too early otherwise.
_ENCODED = "`@ : / ? # %` of a password are written `%40 %3A %2F %3F %23 %25`"
#: What the query of a Redis URL may say, by scheme and in the words of redis-py.
_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "rediss": {
        "ssl_ca_certs": "FILE",
        "ssl_certfile": "FILE",
        "ssl_keyfile": "FILE",
        "ssl_password": "TEXT",
        "ssl_cert_reqs": "required|optional|none",
        "ssl_check_hostname": "true|false",
    },
    "unix": {"db": "NUMBER"},
}


def broker_url(url: str) -> str:
    """Accept a Redis or RabbitMQ URL."""
    checked = _checked(url, BROKER_SCHEMES, _REDIS)
    return checked if is_rabbitmq(checked) else _checked_redis(checked)


def state_url(url: str) -> str:
    """Accept a Redis URL."""
    return _checked_redis(_checked(url, STATE_SCHEMES, _REDIS))


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
    if not parts.hostname and not _is_socket(parts):
        raise ValueError(f'must name a host, unlike "{masked(url)}"; write one such as {example}')
    return url


def _checked_redis(url: str) -> str:
    """Return the URL if the clients of state and broker alike understand all of it."""
    parts = urlsplit(url)
    path = parts.path.strip("/")
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(f'must be a URL such as {_REDIS}, not "{masked(url)}"; {_ENCODED}')
    if _is_socket(parts):
        if parts.hostname or not path:
            raise ValueError(f'must name a file, such as unix:///run/redis.sock, unlike "{masked(url)}"')
    elif path and not path.isdecimal():
        raise ValueError(f'must end with the number of a database, such as {_REDIS}, unlike "{masked(url)}"')
    _check_options(parts)
    return url


def _check_options(parts: SplitResult) -> None:
    scheme = parts.scheme.removesuffix("+list")
    known = _OPTIONS.get(scheme, {})
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            may = f"only {', '.join(known)}" if known else "nothing"
            raise ValueError(f"must say {may} behind the `?` of {scheme}://, not {name}")
        if not _fits(value, known[name]):
            raise ValueError(f"must say {name}={known[name]} behind its `?`")


def _fits(value: str, words: str) -> bool:
    if words == "NUMBER":
        return value.isdecimal()
    return value != "" if words.isupper() else value in words.split("|")


def _is_socket(parts: SplitResult) -> bool:
    return parts.scheme in ("unix", "unix+list")


def _split(url: str, example: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a number, or out of range
    except ValueError:
        cure = f"; {_ENCODED}" if "@" in url and example == _REDIS else ""
        raise ValueError(f'must be a URL such as {example}, not "{masked(url)}"{cure}') from None
    return parts


def _spoken(schemes: tuple[str, ...]) -> str:
    first = ", ".join(f"{scheme}://" for scheme in schemes[:-1])
    return f"{first} or {schemes[-1]}://"
