"""Connections to Redis that fail fast and clearly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from hermes_async.domain.errors import StoreUnavailable

#: Seconds to connect and to wait for a reply: together with one retry, less than the 3 s that we promise.
CONNECT_TIMEOUT, REPLY_TIMEOUT = 1.4, 2.5
#: The oldest Redis that knows all we ask for: ZINTER, `ZADD … LT` and `XPENDING … IDLE` came with it.
OLDEST = (6, 2)


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


def name_of(info: Mapping[str, Any], where: str) -> str:
    """Return what a server is and its version, given its INFO.

    Raises:
        StoreUnavailable: it is too old for us.
    """
    name = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{name}_version"])
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise StoreUnavailable(
            f"Redis at {where} is {version}: it must be 6.2 or newer, or Valkey; upgrade it"
        )
    return f"{name} {version}"
