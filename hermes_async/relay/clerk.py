"""What a client commands over its socket, done if its token allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from hermes_async.core.hermes import Hermes
from hermes_async.relay.access import Access
from hermes_async.relay.auth import Grant
from hermes_async.relay.commands import Ack, Answer, Cancel, Dispatch, Inbox, Message, Said, Send, parsed
from hermes_async.relay.tail import BATCH_BYTES

Reply = dict[str, Any]


class _Duty(NamedTuple):
    """What a command says, and who does it; `changes`: not for a token that may only hear."""

    kind: type[Said]
    do: Callable[[Access, Any], Awaitable[Reply]]
    changes: bool = True


class Clerk:
    """Obeys commands; absent and foreign look the same."""

    def __init__(self, hermes: Hermes) -> None:
        self._hermes = hermes
        self._duties: Mapping[str, _Duty] = {
            "dispatch": _Duty(Dispatch, self._dispatch),
            "cancel": _Duty(Cancel, self._cancel),
            "send": _Duty(Send, self._send),
            "answer": _Duty(Answer, self._answer),
            "message": _Duty(Message, self._message),
            "inbox": _Duty(Inbox, self._inbox, changes=False),
            "ack": _Duty(Ack, self._ack),
        }
        #: The commands by name.
        self.commands = tuple(self._duties)

    async def obey(self, command: str, grant: Grant, said: object) -> Reply:
        """Do what a client says, and return what it is told.

        Raises:
            InvalidInput: it cannot be understood.
            Forbidden: the token allows only to hear.
            UnknownTask: there is no such session or task for this token.
        """
        duty = self._duties[command]
        wish = parsed(duty.kind, said)
        access = Access(self._hermes, grant)
        if duty.changes:
            access.to_command()
        return {"ok": True, **await duty.do(access, wish)}

    async def _dispatch(self, access: Access, wish: Dispatch) -> Reply:
        session = access.session(wish.session, wish.parent)
        seq = await self._hermes.store.last_seq(session.id)
        handle = await session.submit(
            wish.subagent, wish.input, priority=wish.priority, idempotency_key=wish.idempotency_key
        )
        return {"task": handle.id, "seq": seq}

    async def _cancel(self, access: Access, wish: Cancel) -> Reply:
        handle = await access.handle(wish.task)
        return {"cancelled": await handle.cancel(force=wish.force, cascade=wish.cascade)}

    async def _send(self, access: Access, wish: Send) -> Reply:
        handle = await access.handle(wish.task)
        return {"seq": await handle.send(wish.text, wish.data)}

    async def _answer(self, access: Access, wish: Answer) -> Reply:
        handle = await access.handle(wish.task)
        return {"accepted": await handle.answer(wish.value, wish.question)}

    async def _message(self, access: Access, wish: Message) -> Reply:
        return {"seq": await access.session(wish.session).send_message(wish.text, wish.data)}

    async def _inbox(self, access: Access, wish: Inbox) -> Reply:
        """Return deliveries, as many as an answer holds, and at least one if there is any."""
        session = access.session(wish.session)
        taken: list[Any] = []
        room = BATCH_BYTES
        for delivery in await session.pending(wish.limit, wish.after):
            room -= len(delivery.event.model_dump_json().encode())
            if taken and room < 0:
                break
            taken.append(delivery.event.model_dump(mode="json"))
        return {"deliveries": taken, "unread": await session.unread()}

    async def _ack(self, access: Access, wish: Ack) -> Reply:
        return {"acked": await access.session(wish.session).ack(*wish.seqs)}
