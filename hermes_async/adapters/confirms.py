"""RabbitMQ's confirmations, awaited together: one wait for many messages instead of one for each."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError

__all__ = ["Confirms"]


class Confirms:
    """Which messages of a channel the broker still has to confirm; it numbers them from one."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._expected = 0
        self._missing: set[int] = set()
        self._refused = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)

    @classmethod
    def of(cls, channel: Any) -> Confirms:
        """Return the one of this channel, which lasts as long as the channel does."""
        confirms: Confirms = getattr(channel, "confirms", None) or cls(channel)
        channel.confirms = confirms
        return confirms

    def expect(self, count: int) -> None:
        """The next messages on the channel are to be confirmed; they must follow at once."""
        first = self._expected + 1
        self._expected += count
        self._missing.update(range(first, first + count))

    def wait(self, timeout: float) -> None:
        """Wait until nothing is missing. After an error, the channel is of no more use.

        Raises:
            OperationalError: the broker has refused a message.
            TimeoutError: it has been silent for so many seconds.
        """
        while self._missing:
            self._channel.connection.drain_events(timeout=timeout)
        if self._refused:
            raise OperationalError("it has refused a message")

    def _on_ack(self, number: int, multiple: bool) -> None:
        if multiple:
            self._missing = {missing for missing in self._missing if missing > number}
        else:
            self._missing.discard(number)

    def _on_nack(self, number: int, multiple: bool) -> None:
        self._refused = True
        self._on_ack(number, multiple)
