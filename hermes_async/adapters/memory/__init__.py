"""Store and queue in memory: the same semantics as the real ones, for tests and for `LocalHermes`."""

from hermes_async.adapters.memory.queue import MemoryQueue
from hermes_async.adapters.memory.store import MemoryStore

__all__ = ["MemoryQueue", "MemoryStore"]
