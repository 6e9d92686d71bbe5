"""What one channel may still take, and what becomes of the messages it has taken."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import kombu.transport.virtual

__all__ = ["QoS", "running_tags"]

# Kombu says that it is typed, and is not.
virtual: Any = kombu.transport.virtual


def running_tags() -> set[str]:
    """Tags of the Celery tasks that go on running although their connection is gone."""
    state = sys.modules.get("celery.worker.state")
    if state is None or _is_set(state.should_stop) or _is_set(state.should_terminate):
        return set()
    references = state.active_requests.data.copy()  # at once: a WeakSet must not change while it is read
    return {request.message.delivery_tag for ref in references if (request := ref()) is not None}


def _is_set(exit_code: int | bool | None) -> bool:
    return exit_code is not None and exit_code is not False


class QoS(virtual.QoS):  # type: ignore[misc]
    """Prefetch credit of one channel; the keeper knows what is in flight."""

    def can_consume(self) -> bool:
        """Whether there is room for one more."""
        room = self.can_consume_max_estimate()
        return room is None or room > 0

    def can_consume_max_estimate(self) -> int | None:
        """How many more there is room for; what a lost connection has left running takes up its room."""
        room: int | None = super().can_consume_max_estimate()
        return room if room is None else max(room - len(self.channel.keeper.orphans), 0)

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message is delivered."""
        self.channel.keeper.hold(delivery_tag)
        super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """A message is done."""
        self.channel.keeper.ack(delivery_tag)
        super().ack(delivery_tag)
        self.channel.flush_unless_in_hub()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """A message is refused: for ever, or to be delivered again."""
        if not requeue:
            self.ack(delivery_tag)
            return
        self.channel.keeper.reject(delivery_tag)
        self._quick_ack(delivery_tag)

    def forget(self, delivery_tag: str) -> None:
        """A message was delivered and nobody has it: its end is somebody else's to write."""
        self.channel.keeper.held.discard(delivery_tag)
        if delivery_tag in self._delivered:
            self._quick_ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Give back every message that is not being worked on."""
        self._flush()
        running = running_tags().intersection(self._delivered)
        tags = [tag for tag in self._delivered if tag not in running]
        self._delivered.clear()
        self.channel.keeper.orphans |= running
        self.channel.keeper.give_back(tags)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same, when the channel closes or the process ends; without a server the leases lapse."""
        self._on_collect.cancel()
        if self._delivered and self.channel.do_restore:
            with suppress(*self.channel.connection_errors):
                self.restore_unacked()

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """The keeper reaps, in its own thread."""
