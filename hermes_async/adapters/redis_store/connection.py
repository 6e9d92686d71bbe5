"""Connections to Redis that fail fast and clearly."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

#: Seconds to connect and to wait for a reply: together with one retry, less than the 3 s that we promise.
CONNECT_TIMEOUT, REPLY_TIMEOUT = 1.4, 2.5


def client_for(url: str, *, retries: bool = True) -> Redis:
    """Return a client that speaks text, for a URL that may bear the name of one of our transports.

    Args:
        url: where Redis is.
        retries: one immediate retry cures a connection that the server closed while it was idle; every script
            of ours may be repeated. False: whoever uses the connection connects again.
    """
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,) if retries else ())
    return Redis.from_url(
        plain(url),
        decode_responses=True,
        protocol=2,
        retry=retry,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=REPLY_TIMEOUT,
        socket_keepalive=True,
    )


def plain(url: str) -> str:
    """Return the URL as redis-py knows it, without the name of a broker transport."""
    for ours, theirs in (("redisstream://", "redis://"), ("redis+list://", "redis://")):
        if url.startswith(ours):
            return theirs + url.removeprefix(ours)
    return url


def shown(url: str) -> str:
    """Return the URL without its password, for messages."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path, "", ""))
