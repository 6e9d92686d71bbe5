"""Making the calls that the ledger holds: functions here, webhooks through a sender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hermes_async.domain.callback import Call
from hermes_async.domain.events import MessageData
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import TaskResult


@dataclass(frozen=True)
class Succeeded:
    """Whoever was called has taken it; what a function said in the session is posted with that."""

    messages: Sequence[MessageData] = ()


@dataclass(frozen=True)
class Failed:
    """A try that counts: it is made again after `delay` seconds, or when the schedule says so (None)."""

    error: ErrorInfo
    delay: float | None = None


@dataclass(frozen=True)
class PutOff:
    """There was no try, and none counts: come again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class Dead:
    """No further try can help."""

    error: ErrorInfo


Outcome = Succeeded | Failed | PutOff | Dead


class Sender(Protocol):
    """Posts a finished task to a webhook. What became of it is the return value; it raises nothing."""

    async def send(self, call: Call, result: TaskResult) -> Outcome:
        """Make one try, which the caller may cancel when the claim is lost."""
        ...
