"""What this process holds of one broker, kept on lease by a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from time import monotonic
from weakref import WeakValueDictionary

from redis.exceptions import RedisError

from hermes_async.transport.entries import Entries

logger = logging.getLogger(__name__)

#: How often consumers that vanished are looked for, in seconds.
TIDY_EVERY = 60.0
#: Broken connections and refused commands: the lease is renewed at the next beat, if there is still time.
TROUBLE = (RedisError, OSError)


class Keeper:
    """Tags in flight, acks to send, and the thread that renews, acks and reaps however busy the process is.

    It outlives the channels: a task that runs on while the connection is lost keeps its lease, and so is
    not run twice.
    """

    def __init__(self, entries: Entries, lease: float) -> None:
        self.entries = entries
        self.lease = lease
        self.held: set[str] = set()
        #: Those of them whose channel is closed although their tasks run on.
        self.orphans: set[str] = set()
        self._acks: deque[str] = deque()
        self._channels: set[object] = set()
        self._queues: set[str] = set()
        self._owner = os.getpid()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._tidied_at = monotonic()

    # -- what channels tell it -------------------------------------------------------------------------
    def attach(self, channel: object, queue: str) -> None:
        """A channel consumes a queue: begin to beat."""
        self._channels.add(channel)
        self._queues.add(queue)
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._beat, args=(self._stop,), name="redisstream-lease", daemon=True
            )
            self._thread.start()

    def detach(self, channel: object, running: Iterable[str]) -> None:
        """A channel closes; with the last one, everything that is not running goes back and the beat ends."""
        if channel not in self._channels or self.is_inherited():
            return
        self._channels.remove(channel)
        if not self._channels:
            with suppress(*TROUBLE):
                self.give_back(sorted(self.held.difference(running)))
            if not self.held:
                self._end()

    def hold(self, tag: str) -> None:
        """An entry arrived."""
        self.held.add(tag)

    def ack(self, tag: str) -> None:
        """An entry is done; the server is told at the next flush."""
        self._let_go(tag)
        self._acks.append(tag)

    def reject(self, tag: str) -> None:
        """An entry could not be processed: it is delivered again, unless that has happened too often."""
        self._let_go(tag)
        self.entries.give_back([tag], failed=True)

    def give_back(self, tags: Iterable[str]) -> None:
        """Entries were not processed, which is nobody's fault."""
        returned = [tag for tag in tags if tag in self.held]
        self.held.difference_update(returned)  # first, so that whatever cannot be given back now lapses
        self.orphans.difference_update(returned)
        if returned:
            self.entries.give_back(returned)

    @property
    def has_acks(self) -> bool:
        """Whether there are acks to send."""
        return bool(self._acks)

    def flush(self) -> None:
        """Send the acks; those that cannot be sent stay for the next flush."""
        if not self._acks:
            return
        tags = []
        with suppress(IndexError):  # other threads append meanwhile
            while True:
                tags.append(self._acks.popleft())
        try:
            self.entries.ack(tags)
        except BaseException:
            self._acks.extend(tags)
            raise

    def _let_go(self, tag: str) -> None:
        self.held.discard(tag)
        self.orphans.discard(tag)

    def is_inherited(self) -> bool:
        """In a forked child everything belongs to the parent."""
        return self._owner != os.getpid()

    # -- the thread ------------------------------------------------------------------------------------
    def _beat(self, stop: threading.Event) -> None:
        pause, told = 0.0, False
        while not stop.wait(pause):
            pause = self.lease / 3
            try:
                self._tend()
                told = False
            except Exception as error:  # this thread must not end: without it every lease lapses
                pause = min(pause, 1.0)
                level = logging.WARNING if self.held and not told else logging.DEBUG
                told = told or level == logging.WARNING
                logger.log(level, "The lease of %d messages could not be renewed: %r", len(self.held), error)

    def _tend(self) -> None:
        self.entries.renew(tuple(self.held))
        self.flush()
        queues = tuple(self._queues)
        self.entries.reap(queues, int(self.lease * 1000))
        if monotonic() - self._tidied_at > TIDY_EVERY:
            self._tidied_at = monotonic()
            self.entries.forget_idle_consumers(queues)

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)  # it may be waiting for a dead server, and ends then
            self._thread = None
        with suppress(*TROUBLE):
            self.flush()
            self.entries.leave(self._queues)
        self._queues.clear()
        self.entries.client.connection_pool.disconnect()


#: A keeper lives as long as a channel knows it or its thread beats.
_keepers: WeakValueDictionary[Hashable, Keeper] = WeakValueDictionary()


def keeper_of(broker: Hashable, make: Callable[[], Keeper]) -> Keeper:
    """The one keeper this process has for a broker."""
    keeper = _keepers.get(broker)
    if keeper is None:
        _keepers[broker] = keeper = make()
    return keeper


os.register_at_fork(after_in_child=_keepers.clear)
