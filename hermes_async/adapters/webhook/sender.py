"""One try to post a finished task: to whom, what came of it, and when the next one is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext
from typing import Final

from aiohttp import (
    ClientError,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ThreadedResolver,
)
from aiohttp.abc import AbstractResolver

from hermes_async.adapters.guarded import Refused, Target, connector, target
from hermes_async.adapters.webhook.breaker import Breaker
from hermes_async.adapters.webhook.errand import ERRAND
from hermes_async.adapters.webhook.message import body
from hermes_async.adapters.webhook.schedule import delay_after, retry_after
from hermes_async.adapters.webhook.signature import headers
from hermes_async.core.callbacks import Dead, Failed, Outcome, PutOff, Succeeded
from hermes_async.core.ledger import Endpoints
from hermes_async.core.registry import Registry
from hermes_async.core.tracing import UNTRACED, Tracing
from hermes_async.domain.agent import Webhook
from hermes_async.domain.callback import Call
from hermes_async.domain.failure import ErrorInfo
from hermes_async.domain.task import TaskResult
from hermes_async.domain.urls import masked

#: Seconds from the look at the DNS to the last header of the answer. Its body is not read.
TIMEOUT: Final = 15.0
_LONGEST_MESSAGE: Final = 500
_SAID = {"content-type": "application/json", "user-agent": "hermes-async"}
#: Statuses with which a receiver may say when to come again.
_WISHES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class Answer:
    """What a receiver said: a status, and in how many seconds it wants to be asked again."""

    status: int
    wish: float = 0.0


class WebhookSender:
    """Posts to the webhooks of agents.yaml; it looks them up by parent and subagent, secrets included.

    Args:
        registry: the agents that this process knows. No record and no row of the ledger has a secret.
        endpoints: what all workers know of the health of endpoints.
        allow: `host:port` of servers that may be on private networks.
        tls: what certificates are checked by; True: the system's authorities.
        timeout: seconds of one try.
        resolver: makes what looks names up.
        tracing: says in which trace a post is made.
    """

    def __init__(
        self,
        registry: Registry,
        endpoints: Endpoints,
        *,
        allow: Collection[str] = (),
        tls: SSLContext | bool = True,
        timeout: float = TIMEOUT,
        resolver: Callable[[], AbstractResolver] = ThreadedResolver,
        tracing: Tracing = UNTRACED,
    ) -> None:
        self._tracing = tracing
        self._registry = registry
        self._breaker = Breaker(endpoints, probe=timeout)
        self._allow = allow
        self._tls = tls
        self._timeout = ClientTimeout(total=timeout)
        self._resolver = resolver

    async def send(self, call: Call, result: TaskResult) -> Outcome:
        """Make one try and say what became of it."""
        webhook = self._registry.webhook(call.task)
        if webhook is None:
            return _failed(call, "UnknownWebhook", _unknown(call))
        endpoint = masked(webhook.url)
        if delay := await self._breaker.delay(endpoint):
            return PutOff(delay)
        outcome = await self._tried(webhook, call, result)
        await self._breaker.note(endpoint, outcome)
        return outcome

    def failed(self, call: Call, error: ErrorInfo) -> Outcome:
        """Return what follows from a try that was given up: as much as from one that was answered badly."""
        return _next(call, error)

    async def _tried(self, webhook: Webhook, call: Call, result: TaskResult) -> Outcome:
        try:
            to = target(webhook.url, ERRAND, self._allow)
            return _outcome(call, await self._post(to, webhook, call, body(call, result)))
        except Refused as error:
            return Dead(ErrorInfo(type="Refused", message=str(error)))
        except TimeoutError:
            return _failed(call, "TimeoutError", f"no answer within {self._timeout.total:g} s")
        except (ClientError, OSError, ValueError) as error:  # aiohttp has a ValueError for what is no URL
            return _failed(call, type(error).__name__, _clean(_words(error)))

    async def _post(self, to: Target, webhook: Webhook, call: Call, content: bytes) -> Answer:
        now = time.time()
        session = ClientSession(
            connector=connector(to, self._resolver(), self._tls),
            cookie_jar=DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
        )
        signed = {**headers(webhook.secrets, call.id, now, content), **self._tracing.headers()}
        async with (
            session,
            session.post(
                to.url, data=content, headers={**_SAID, **signed}, allow_redirects=False
            ) as response,
        ):
            wish = (
                retry_after(response.headers.get("Retry-After"), now) if response.status in _WISHES else 0.0
            )
            return Answer(response.status, wish)


def _outcome(call: Call, answer: Answer) -> Outcome:
    if 200 <= answer.status < 300:
        return Succeeded()
    error = ErrorInfo(type=f"HTTP {answer.status}", message=_told(answer.status))
    if answer.status == HTTPStatus.GONE:
        return Dead(error)
    return _next(call, error, answer.wish)


def _failed(call: Call, kind: str, message: str) -> Outcome:
    return _next(call, ErrorInfo(type=kind, message=message))


def _next(call: Call, error: ErrorInfo, wish: float = 0.0) -> Outcome:
    delay = delay_after(call.callback.failures + 1, wish)
    return Dead(error) if delay is None else Failed(error, delay)


def _told(status: int) -> str:
    if 300 <= status < 400:
        return f"the receiver answered {status}; redirects are not followed, so write the final URL"
    if status == HTTPStatus.GONE:
        return "the receiver answered 410: it wants no more of these"
    return f"the receiver answered {status}"


def _words(error: Exception) -> str:
    """Return what an error says; aiohttp shows the whole URL with some, and its query may be a secret."""
    return error.message if isinstance(error, ClientResponseError) else str(error)


def _clean(text: str) -> str:
    """Return what may be stored of a message in which a receiver may have had its say."""
    return text.encode("utf-8", "replace").decode()[:_LONGEST_MESSAGE]


def _unknown(call: Call) -> str:
    birth = call.task.birth
    asker = birth.parent or "a session without a parent"
    return f"this process knows no webhook of {birth.subagent!r} for {asker}; give it the same agents.yaml"
