"""How many slots a pool has: `min_workers`, `max_workers` and `scale_threshold` drive Celery's autoscaler."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from celery.bootsteps import RUN
from celery.worker import state
from celery.worker.autoscale import AUTOSCALE_KEEPALIVE, Autoscaler

from hermes_async.worker.cpu import CpuMeter, Pulse, cores
from hermes_async.worker.pool import AsyncioPool

logger = logging.getLogger("hermes.worker")

#: Seconds between two looks at the pool.
LOOK_EVERY = 0.2
#: The share of the CPU from which on more slots would only take it from each other.
SATURATED = 0.9


@dataclass(frozen=True)
class Look:
    """What a pool is like at one moment; a slot runs one task: it is a process, or a place on the loop."""

    slots: int
    least: int
    most: int
    #: Tasks that have begun.
    running: int
    #: Those, and what was taken from the broker and waits for a slot.
    held: int
    #: Share of the CPU that the pool may use; 1 also when its loop is blocked.
    cpu: float = 0.0


class Scale:
    """Says how many slots a pool should have; knows nothing of Celery.

    The pool doubles when its load, the share of slots that run a task, is at least the threshold at two looks
    in a row, and halves when less than half of the threshold was held for a while: neither step ever provokes
    the other. CPU is a brake and no reason to grow: more processes than cores, or more coroutines on a busy
    loop, make nothing faster, and the messages that they take would be better off with another worker. Two
    looks, because the first one's CPU is of a time when the load may still have been low.

    Args:
        threshold: above 0, at most 1.
        patience: seconds that a pool must be calm before it halves.
    """

    def __init__(self, threshold: float, patience: float) -> None:
        self.threshold = threshold
        self._patience = patience
        self._calm_since = math.inf
        self._pressed = False

    def slots(self, look: Look, now: float) -> int:
        """Return how many slots the pool should have now."""
        if look.held / max(look.slots, 1) >= self.threshold / 2:
            self._calm_since = math.inf
        self._calm_since = min(self._calm_since, now)
        if not look.least <= look.slots <= look.most:  # somebody has changed the range
            return max(look.least, min(look.slots, max(look.most, look.held)))
        pressed = look.running / look.slots >= self.threshold and look.cpu < SATURATED
        grows, self._pressed = pressed and self._pressed, pressed and not self._pressed
        if grows:
            return min(2 * look.slots, look.most)
        if now - self._calm_since >= self._patience:
            self._calm_since = now  # it halves again only after another while
            return max(look.least, math.ceil(look.slots / 2))
        return look.slots


class ThresholdAutoscaler(Autoscaler):  # type: ignore[misc]
    """Scales a pool of either lane; it takes no more messages than there are slots, so that none waits here.

    The environment variable AUTOSCALE_KEEPALIVE is, as in Celery, how long a pool must be calm.
    """

    min_concurrency: int
    max_concurrency: int

    def __init__(
        self,
        pool: Any,
        max_concurrency: int,
        min_concurrency: int = 0,
        worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE,
        mutex: Any = None,
    ) -> None:
        least = max(min_concurrency, 1)  # a consumer without any slot would take messages without end
        super().__init__(pool, max(max_concurrency, least), least, worker, LOOK_EVERY, mutex)
        self._scale = Scale(worker.app.hermes.registry.config.async_worker_pool.scale_threshold, keepalive)
        # All coroutines share one loop, which cannot use more than one core.
        self._meter = CpuMeter(min(1.0, cores()) if isinstance(pool, AsyncioPool) else cores())
        self._pulse = Pulse()
        self._cpu = 0.0
        # The consumer, not made yet, would ask for as many messages at once as the largest pool has slots.
        worker.max_concurrency = least

    def maybe_scale(self, req: Any = None) -> None:
        """Look at the pool at each tick; not at each message, of which Celery tells, too."""
        if req is None and self.worker.blueprint.state == RUN:  # ticks go on while a worker stops
            super().maybe_scale()

    def _maybe_scale(self, req: Any = None) -> bool:
        before, now = self._look(), monotonic()
        wanted = self._scale.slots(before, now)
        if wanted > before.slots:
            self.pool.grow(wanted - before.slots)
        elif wanted < before.slots:
            with suppress(ValueError):  # not that many are idle; those that are, are gone
                self.pool.shrink(before.slots - wanted)
        if self.processes != before.slots:
            self.worker.consumer._update_prefetch_count(self.processes - before.slots)
            self._tell(before, self.processes)
        return bool(self.processes != before.slots)

    def _look(self) -> Look:
        info = self.pool.info
        aside = info.get("aside", 0)  # they need no slot
        self._cpu = self._meter.read(info["processes"], monotonic())
        if isinstance(self.pool, AsyncioPool) and not self._pulse.read(self.pool.loop):
            self._cpu = 1.0
        return Look(
            self.processes,
            self.min_concurrency,
            self.max_concurrency,
            running=len(state.active_requests) - aside,
            held=len(state.reserved_requests) - aside,
            cpu=self._cpu,
        )

    def _tell(self, before: Look, slots: int) -> None:
        logger.info(
            "pool %s from %d to %d slots: %d busy, CPU %.0f%%",
            "grew" if slots > before.slots else "shrank",
            *(before.slots, slots, before.held, 100 * before.cpu),
        )
        events = self.worker.consumer.event_dispatcher
        if events is not None:
            cpu = round(before.cpu, 2)
            events.send("worker-pool-scaled", slots=slots, before=before.slots, busy=before.held, cpu=cpu)

    def update(self, most: int | None = None, least: int | None = None) -> tuple[int, int]:
        """Change the range, for `celery control autoscale`; the pool follows, but lets its tasks end."""
        with self.mutex:
            self.max_concurrency = max(self.max_concurrency if most is None else most, 1)
            least = self.min_concurrency if least is None else least
            self.min_concurrency = min(max(least, 1), self.max_concurrency)
        return self.max_concurrency, self.min_concurrency

    def info(self) -> dict[str, Any]:
        """Return what `celery inspect stats` shows."""
        return {**super().info(), "threshold": self._scale.threshold, "cpu": round(self._cpu, 2)}
