"""What `doctor` looks at: each check says whether something is well, and how to mend it."""

from __future__ import annotations

import json
import platform
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import anyio
import redis
from kombu import Connection
from kombu.exceptions import KombuError

from hermes_async.adapters import state_folder
from hermes_async.adapters.celery_queue import CeleryQueue, mailbox, transport_url
from hermes_async.adapters.cures import cure
from hermes_async.adapters.embedded_redis import find_server, last_fault, running_url
from hermes_async.adapters.redis_store import RedisStore
from hermes_async.adapters.redis_store.connection import name_of, plain
from hermes_async.adapters.redis_store.meaning import unavailable
from hermes_async.adapters.tracer import tracing_here
from hermes_async.bootstrap import Servers
from hermes_async.cli.sources import changed, changed_since
from hermes_async.cli.words import seconds
from hermes_async.core.ledger import Backlog
from hermes_async.core.ports import Traffic
from hermes_async.core.tracing import UNTRACED
from hermes_async.domain.errors import ConfigError, EmbeddedServerError, QueueUnavailable, StoreUnavailable
from hermes_async.domain.task import Lane
from hermes_async.domain.urls import is_rabbitmq, masked
from hermes_async.relay.auth import mint
from hermes_async.relay.secret import known_secret
from hermes_async.settings import Settings

Status = Literal["ok", "warning", "broken"]
#: Seconds for a server to answer, and for all workers to.
PATIENCE, WORKERS_ANSWER = 2.0, 1.0


@dataclass(frozen=True)
class Finding:
    """What a check has found."""

    check: str
    status: Status
    detail: str


def python() -> Finding:
    """Tell which Python runs us."""
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()}")


def traces() -> Finding:
    """Tell whether the spans that somebody wants can be sent."""
    try:
        is_there = tracing_here("redis", collects=True) is not UNTRACED
    except ConfigError as error:
        return Finding("traces", "broken", str(error))
    if not is_there:
        return Finding("traces", "broken", "OpenTelemetry is missing: pip install 'hermes_async[otel]'")
    return Finding("traces", "ok", "spans are sent as the OTEL_ variables say")


def binary(settings: Settings) -> Finding:
    """Look for a server program, which is needed unless servers are configured."""
    try:
        return Finding("redis binary", "ok", str(find_server()))
    except EmbeddedServerError as error:
        needed = settings.agents.task_queue is None
        return Finding("redis binary", "broken" if needed else "ok", str(error) if needed else "not needed")


def where(settings: Settings) -> Servers | None:
    """Return the servers that are configured or run already; start nothing."""
    broker = settings.agents.task_queue or running_url(settings.state_dir / "redis")
    agents = settings.agents
    return Servers(broker, agents.state or broker, namespace=agents.namespace) if broker else None


def folder(settings: Settings) -> Iterator[Finding]:
    """Look whether what is private can be kept, unless all of it is elsewhere."""
    needed = settings.agents.task_queue is None or settings.agents.relay.secret is None
    fault = state_folder.fault(settings.state_dir / "redis") if needed else None
    if fault:
        cure = "make it yours to write, or name another with HERMES_STATE_DIR"
        yield Finding("state folder", "broken", f"{fault}; {cure}")


def stopped(settings: Settings) -> Finding:
    """Say why the embedded Redis does not run."""
    home = settings.state_dir / "redis"
    if fault := last_fault(home):
        cure = f"mend that, or move {home} away to begin without its data"
        return Finding("state", "broken", f"the embedded Redis could not go on: {fault}; {cure}")
    return Finding("state", "warning", "the embedded Redis does not run; `hermes-async up` starts it")


def redis_findings(servers: Servers) -> Iterator[Finding]:
    """Look at the Redis that keeps the state: does it answer, and does it keep what it is given?"""
    client = redis.Redis.from_url(
        plain(servers.state),
        decode_responses=True,
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
    )
    with client:
        try:
            info: Any = client.info()
            name = name_of(info, masked(servers.state))
        except (redis.RedisError, StoreUnavailable) as error:
            yield Finding("state", "broken", str(unavailable(error, masked(servers.state))))
            return
        yield Finding("state", "ok", f"{name} at {masked(servers.state)}")
        yield durability(bool(info.get("aof_enabled")), _asked(client, "appendfsync"))
        yield eviction(str(info.get("maxmemory_policy", "")))


def _asked(client: redis.Redis, name: str) -> str | None:
    """Return a parameter of the server, or None where hosting forbids to ask."""
    with suppress(redis.RedisError):
        said: Any = client.config_get(name)
        return str(said.get(name)) if said.get(name) else None
    return None


def durability(aof: bool, fsync: str | None) -> Finding:
    """Say whether what was accepted survives a crash of Redis."""
    if not aof:
        return Finding(
            "durability", "warning", "no append-only file: a crash of Redis loses tasks; set `appendonly yes`"
        )
    lost = {"always": "nothing", "everysec": "at most the last second"}.get(fsync or "", "a little")
    return Finding("durability", "ok", f"append-only file on: a crash of Redis loses {lost}")


def eviction(policy: str) -> Finding:
    """Say whether Redis forgets tasks when its memory is full."""
    if policy in ("", "noeviction"):
        return Finding("memory", "ok", "nothing is evicted when memory is full")
    return Finding("memory", "warning", f"maxmemory-policy {policy} may evict tasks; set it to noeviction")


def broker(servers: Servers) -> Finding:
    """Look whether the broker answers; the Redis of the state was looked at already."""
    if servers.are_one:
        return Finding("broker", "ok", "the same Redis: a task and its message are written in one step")
    try:
        anyio.run(_ping, servers)
    except QueueUnavailable as error:
        return Finding("broker", "broken", str(error))
    kind = "RabbitMQ" if is_rabbitmq(servers.broker) else "another Redis"
    return Finding(
        "broker", "ok", f"{kind} at {masked(servers.broker)}: the janitor repairs a crash between the two"
    )


async def _ping(servers: Servers) -> None:
    queue = CeleryQueue(servers.broker, shares_store=False)
    try:
        await queue.ping()
    finally:
        await queue.close()


def workers(servers: Servers, files: Collection[Path]) -> Iterator[Finding]:
    """Ask all workers for a sign of life, how their pools are, and whether they run what is in the files."""
    try:
        stats = {name: said for reply in _stats(servers) for name, said in reply.items()}
    except (KombuError, OSError, redis.RedisError) as error:
        yield Finding("workers", "broken", f"cannot be asked ({error}){cure(servers.broker, str(error))}")
        return
    if not stats:
        yield Finding("workers", "warning", "none answers: tasks wait; start them with `hermes-async up`")
        return
    yield Finding("workers", "ok", ", ".join(sorted(stats)))
    for name, said in sorted(stats.items()):
        yield from pool(name, said)
        yield from stale(name, said, files)


def pool(name: str, stats: dict[str, Any]) -> Iterator[Finding]:
    """Say how full the pool of a worker is, and how far it may grow."""
    about = stats.get("pool") or {}
    if "running" not in about:  # not one of our workers, or it is about to stop
        return
    slots, most = about["max-concurrency"], stats.get("autoscaler", {}).get("max", 0)
    grows = f", may grow to {most}" if most > slots else ""
    yield Finding("pool", "ok", f"{name}: {about['running']} of {slots} slots busy{grows}")


def stale(name: str, stats: dict[str, Any], files: Collection[Path]) -> Iterator[Finding]:
    """Say which files have changed since a worker of this machine began."""
    is_here = name.rpartition("@")[2] == socket.gethostname()
    if is_here and (found := changed_since(files, time.time() - stats.get("uptime", 0))):
        yield Finding("workers", "warning", f"{changed(found)} since {name} began; start it again")


def _stats(servers: Servers) -> list[dict[str, Any]]:
    with _connection(servers) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=PATIENCE)
        return mailbox(servers.namespace)(connection).multi_call("stats", timeout=WORKERS_ANSWER) or []


def gate_findings(servers: Servers, agents: Iterable[str]) -> Iterator[Finding]:
    """Look at the gate: how much is admitted and waits, for which of the agents nobody works, who sweeps."""
    traffic, backlog = anyio.run(_traffic, servers)
    lanes = (f"{lane}: {traffic.admitted[lane]} tasks for {traffic.slots[lane]} slots" for lane in Lane)
    yield Finding("gate", "ok", f"{', '.join(lanes)}; {traffic.waiting} wait for their turn")
    for lane in Lane:
        if not traffic.slots[lane]:
            cure = f"start one with `hermes-async worker --lane {lane}`"
            yield Finding("gate", "warning", f"no worker serves the {lane} lane: its tasks wait; {cure}")
    unknown = sorted({*agents}.difference(*traffic.agents.values()))
    if unknown and any(traffic.slots.values()):
        yield Finding("gate", "warning", f"no worker knows {', '.join(unknown)}: start the workers again")
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(traffic.swept.items())) or "nothing"
    if traffic.leader is None:
        yield Finding("janitor", "warning", "none sweeps: lost tasks stay lost; start a worker")
    else:
        yield Finding("janitor", "ok", f"{traffic.leader} sweeps; found so far: {done}")
    yield from callbacks(backlog)


def callbacks(backlog: Backlog) -> Iterator[Finding]:
    """Say what waits to be called, whether anybody calls, and what was given up."""
    age = f", the oldest for {seconds(backlog.oldest)}" if backlog.oldest is not None else ""
    waiting = f"{backlog.waiting} wait{age}"
    if backlog.callers:
        workers = f"{backlog.callers} worker{'s call' if backlog.callers > 1 else ' calls'}"
        yield Finding("callbacks", "ok", f"{workers}; {waiting}")
    elif backlog.waiting:
        cure = "start a worker with `hermes-async worker --lane callbacks`"
        yield Finding("callbacks", "warning", f"{waiting}, and nobody calls: {cure}")
    else:
        yield Finding("callbacks", "ok", "none waits; no worker calls")
    if backlog.dead:
        cure = "see `hermes-async callbacks list --dead`, then redeliver or discard"
        yield Finding("callbacks", "warning", f"{backlog.dead} failed for good; {cure}")


async def _traffic(servers: Servers) -> tuple[Traffic, Backlog]:
    store = RedisStore(servers.state, namespace=servers.namespace)
    try:
        return await store.traffic(), await store.ledger.backlog()
    finally:
        await store.close()


def _connection(servers: Servers) -> Connection:
    timeouts = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    url = transport_url(servers.broker)
    return Connection(url, connect_timeout=PATIENCE, transport_options={} if is_rabbitmq(url) else timeouts)


def relay(settings: Settings) -> Finding:
    """Ask the relay how it is."""
    address = (
        settings.relay_url.replace("ws", "http", 1)
        if settings.relay_url.startswith("ws")
        else settings.relay_url
    )
    try:
        said = _asked_of(address, "/healthz")
        is_ours = _takes_our_token(settings, address)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("relay", "warning", f"none at {address} ({reason}); start it with `hermes-async up`")
    if not is_ours:
        cure = "start this one's with `hermes-async up --port N`"
        return Finding("relay", "warning", f"the one at {address} refuses this project's token; {cure}")
    return Finding("relay", "ok", f"{address}, reading {said.get('redis', 'its store')}")


def _takes_our_token(settings: Settings, address: str) -> bool:
    """Tell whether a relay is the project's, and not that of another which has the same port."""
    secret = known_secret(settings)
    token = settings.token or (secret and mint(secret, sub="hermes-async doctor", sessions=[], ttl=60))
    try:
        return bool(token and _asked_of(address, "/v1/tasks", token))
    except HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            return False
        raise


def _asked_of(address: str, path: str, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(f"{address.rstrip('/')}{path}", headers=headers), timeout=PATIENCE) as answer:
        return json.load(answer)
