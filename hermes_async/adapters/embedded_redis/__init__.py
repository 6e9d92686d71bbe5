"""A private Redis server for a project without one: started at need, shared, stopped by the last."""

from hermes_async.adapters.embedded_redis.binary import ServerBinary, find_server
from hermes_async.adapters.embedded_redis.server import EmbeddedRedis, last_fault, running_url

__all__ = ["EmbeddedRedis", "ServerBinary", "find_server", "last_fault", "running_url"]
