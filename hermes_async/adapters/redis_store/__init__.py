"""The store over Redis: scripts that write, plain commands that read, nudges to listen."""

from hermes_async.adapters.redis_store.store import LOG_LENGTH, RedisStore

__all__ = ["LOG_LENGTH", "RedisStore"]
