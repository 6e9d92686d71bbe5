"""A pool that loses its patience sooner than one should."""

from __future__ import annotations

from hermes_async.worker import tracer
from hermes_async.worker.pool import AsyncioPool
from hermes_async.worker.recycle import Rules

tracer.INSIST_EVERY = 0.5


class Hasty(AsyncioPool):
    rules = Rules(max_zombies=2, grace=0.5)
