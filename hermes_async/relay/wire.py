"""What a relay and its clients say to each other over Socket.IO."""

from __future__ import annotations

import logging
import re
from typing import Any, Final, TypedDict

from socketio.packet import ACK, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT, Packet

from hermes_async.domain.errors import InvalidInput

#: Bytes of a message that a client may send.
MESSAGE_BYTES: Final = 64_000

#: What every command is at the relay, whatever its name.
COMMAND = "command"
#: Commands of a client; each is answered in its acknowledgement.
SUBSCRIBE = "subscribe"
UNSUBSCRIBE = "unsubscribe"

#: A batch of events, to be acknowledged by the client before the next one comes.
EVENTS = "events"
#: The token ran out; the socket is closed right after.
EXPIRED = "auth.expired"
#: The relay stops; whoever wants to go on connects again, here or elsewhere.
DRAINING = "relay.draining"

#: A command that asks for an acknowledgement: its number.
_ASKS = re.compile(rf"{EVENT}(\d{{1,99}})(?!\d)")
_SPOKEN = frozenset({CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR})
_RESERVED = frozenset({"connect", "disconnect", "connect_error"})
_UNREADABLE = "a command is a JSON list of its name and an object; this one cannot be read"

#: python-socketio logs packets with the tokens in them, and a traceback for each packet of garbage.
QUIET = logging.getLogger("hermes.relay.socketio")
QUIET.setLevel(logging.CRITICAL)


class Portrait(TypedDict):
    """Tasks as they are once every event up to `seq` is applied; `more`: the next batch goes on with it."""

    seq: int
    tasks: list[dict[str, Any]]
    more: bool


class Batch(TypedDict):
    """What a relay sends at once, about one subscription.

    `gap` names the first and last `seq` that were trimmed; it comes with the snapshot that makes up for
    them, and without events. `end` says that the task is over and the subscription with it.
    """

    session: str
    task: str | None
    events: list[dict[str, Any]]
    gap: tuple[int, int] | None
    snapshot: Portrait | None
    end: bool


class Wire(Packet):  # type: ignore[misc]
    """A Socket.IO packet of text only: binary ones would be collected in memory without any limit."""

    uses_binary_events = False

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet.

        Raises:
            ValueError: it is none that we speak.
        """
        if not isinstance(encoded_packet, str):
            raise ValueError("not a text packet")
        attachments = super().decode(encoded_packet)
        if attachments or self.packet_type not in _SPOKEN or not self._is_sane():
            raise ValueError("not a packet of ours")
        return 0

    def _is_sane(self) -> bool:
        if self.packet_type == ACK:  # the library keeps its counter under id 0
            return bool(self.id) and isinstance(self.data, list)
        if self.packet_type == EVENT:
            return isinstance(self.data, list) and bool(self.data) and self._is_name(self.data[0])
        return True

    def _is_name(self, value: object) -> bool:
        return isinstance(value, str) and value not in _RESERVED


class Heard(Wire):
    """A packet that the relay gets: every command is the event `COMMAND` with the name and what is said.

    So no client names an event of the library's own. In the place of a command that cannot be read stands the
    refusal, if there is an acknowledgement to bring it.
    """

    def decode(self, encoded_packet: Any) -> int:
        """Read a packet.

        Raises:
            ValueError: it is none that we speak, and nobody asks for an answer.
        """
        try:
            _check_size(encoded_packet)
            super().decode(encoded_packet)
        except (InvalidInput, ValueError, RecursionError) as exc:
            asks = _ASKS.match(encoded_packet) if isinstance(encoded_packet, str) else None
            if asks is None:
                raise ValueError("not a packet of ours") from exc
            self.packet_type, self.namespace, self.id = EVENT, None, int(asks[1])
            self.data = _refused(exc)
        if self.packet_type == EVENT:
            self.data = [COMMAND, *self.data]
        return 0

    def _is_name(self, value: object) -> bool:
        return isinstance(value, str)


def _refused(exc: Exception) -> list[object]:
    return [exc if isinstance(exc, InvalidInput) else InvalidInput(_UNREADABLE)]


def _check_size(encoded_packet: Any) -> None:
    size = len(encoded_packet if isinstance(encoded_packet, bytes) else encoded_packet.encode())
    if size > MESSAGE_BYTES:
        raise InvalidInput(
            f"the command is {size:,} bytes, more than {MESSAGE_BYTES:,}: pass a reference instead"
        )
