"""Connections to Redis that fail fast and clearly."""

from __future__ import annotations

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
    kept_alive = {} if url.startswith("unix") else {"socket_keepalive": True}
    return Redis.from_url(
        plain(url),
        decode_responses=True,
        protocol=2,
        retry=retry,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=REPLY_TIMEOUT,
        **kept_alive,
    )


def plain(url: str) -> str:
    """Return the URL as redis-py knows it, without the name of a broker transport."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.removesuffix('+list').replace('redisstream', 'redis')}://{rest}"
