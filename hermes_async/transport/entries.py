"""The Redis commands a consumer needs: claim, renew, settle, give back, count and purge."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ResponseError

from hermes_async.transport.message import PRIORITIES, Line, dead_letter_key, stream_key

__all__ = ["Entries", "Entry", "Group", "arrived", "claimed"]

logger = logging.getLogger(__name__)

#: A consumer that has not looked for this long and holds nothing is forgotten.
CONSUMER_IDLE_MS = 3_600_000
#: How many entries one look at a stream gives back, so that the server does other things in between.
REAP_BATCH = 100


def _lua(name: str) -> str:
    return Path(__file__).with_name(f"{name}.lua").read_text()


CLAIM, REQUEUE, PURGE, LEAVE = (_lua(name) for name in ("claim", "requeue", "purge", "leave"))


class Group(NamedTuple):
    """Who claims, and under which rules."""

    name: str = "celery"
    consumer: str = ""
    max_deliveries: int = 5
    dead_letters_kept: int = 1000
    prefix: str = ""


class Entry(NamedTuple):
    """One entry as the server replies it."""

    key: str
    id: str
    fields: dict[str, str]


class Entries:
    """Everything done to stream entries over one Redis client, for one consumer of one group."""

    def __init__(self, client: Redis, group: Group) -> None:
        self.client = client
        self.group = group
        self._requeue = client.register_script(REQUEUE)
        self._purge = client.register_script(PURGE)
        self._leave = client.register_script(LEAVE)

    def key(self, line: Line) -> str:
        """The stream of a line."""
        return self.group.prefix + stream_key(*line)

    def lines(self, queues: Iterable[str]) -> dict[str, Line]:
        """The streams of these queues, in the order in which they are claimed."""
        names = list(queues)
        lines = (Line(queue, priority) for priority in PRIORITIES for queue in names)
        return {self.key(line): line for line in lines}

    # -- claiming --------------------------------------------------------------------------------------
    def claim_command(self, keys: list[str], credit: int, lifetimes: Iterable[int]) -> list[Any]:
        """The command that claims at once, to be sent by whoever reads its reply."""
        return ["EVAL", CLAIM, len(keys), *keys, self.group.name, self.group.consumer, credit, *lifetimes]

    def wait_command(self, keys: list[str], block_ms: int) -> list[Any]:
        """The command that claims the next entry to arrive."""
        who = ["GROUP", self.group.name, self.group.consumer]
        return ["XREADGROUP", *who, "COUNT", 1, "BLOCK", block_ms, "STREAMS", *keys, *[">"] * len(keys)]

    def claim(self, keys: list[str], credit: int, lifetimes: Iterable[int]) -> list[Entry]:
        """Claim now, without waiting."""
        reply = self.client.execute_command(*self.claim_command(keys, credit, lifetimes))  # type: ignore[no-untyped-call]
        return list(claimed(reply))

    def still_ours(self, tags: list[str]) -> set[str]:
        """Those of the tags that nobody took over while this process was stopped."""
        with self.client.pipeline(transaction=False) as pipe:
            for tag in tags:
                line, entry_id = Line.of_tag(tag)
                pipe.xpending_range(
                    self.key(line), self.group.name, entry_id, entry_id, 1, self.group.consumer
                )
            replies = _without_groups(pipe)
        return {tag for tag, pending in zip(tags, replies, strict=True) if pending}

    # -- settling --------------------------------------------------------------------------------------
    def ack(self, tags: Iterable[str]) -> None:
        """Done for ever: forget the entries."""
        with self.client.pipeline(transaction=False) as pipe:
            for key, ids in self._by_stream(tags):
                # Deleted first: if only this half arrives, the reaper clears the rest and nothing runs again.
                pipe.xdel(key, *ids)
                pipe.xack(key, self.group.name, *ids)
            pipe.execute()

    def renew(self, tags: Iterable[str]) -> None:
        """Keep the lease; entries that are no longer pending stay as they are."""
        with self.client.pipeline(transaction=False) as pipe:
            for key, ids in self._by_stream(tags):
                pipe.xclaim(key, self.group.name, self.group.consumer, 0, ids, justid=True)
            _without_groups(pipe)

    def give_back(self, tags: Iterable[str], *, failed: bool = False, allowed: int | None = None) -> None:
        """Let another consumer have the entries; failed deliveries are counted, and too many are the end."""
        lines = []
        with self.client.pipeline(transaction=False) as pipe:
            for tag in tags:
                line, entry_id = Line.of_tag(tag)
                chosen = [entry_id, entry_id, 1, self.group.consumer]
                self._send_requeue(pipe, line, chosen, failed=failed, allowed=allowed)
                lines.append(line)
            self._moved(lines, pipe.execute())

    def reap(self, queues: Iterable[str], idle_ms: int) -> int:
        """Give back what dead consumers left behind; returns how many entries that were."""
        names, total, moved = list(queues), 0, REAP_BATCH
        while moved >= REAP_BATCH:
            moved = self._requeue_all(names, ["IDLE", idle_ms, "-", "+", REAP_BATCH], failed=True)
            total += moved
        return total

    def leave(self, queues: Iterable[str]) -> None:
        """Give back what was claimed for this consumer but never arrived, then remove the consumer."""
        names = list(queues)
        self._requeue_all(names, ["-", "+", REAP_BATCH, self.group.consumer], failed=False)
        self._remove((key, self.group.consumer) for key in self.lines(names))

    def forget_idle_consumers(self, queues: Iterable[str]) -> None:
        """Remove consumers that went away without saying so."""
        keys = list(self.lines(queues))
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.xinfo_consumers(key, self.group.name)
            replies = pipe.execute(raise_on_error=False)
        self._remove(
            (key, _text(consumer["name"]))
            for key, consumers in zip(keys, replies, strict=True)
            if not isinstance(consumers, ResponseError)
            for consumer in consumers
            if not consumer["pending"] and consumer["idle"] > CONSUMER_IDLE_MS
        )

    # -- counting --------------------------------------------------------------------------------------
    def waiting(self, queue: str) -> int:
        """How many messages nobody has claimed yet."""
        keys = list(self.lines([queue]))
        with self.client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.xlen(key)
                pipe.xpending(key, self.group.name)
            replies = pipe.execute(raise_on_error=False)
        return sum(
            _waiting(length, pending) for length, pending in zip(replies[::2], replies[1::2], strict=True)
        )

    def purge(self, queue: str) -> int:
        """Delete the messages nobody has claimed yet."""
        return sum(int(self._purge(keys=[key], args=[self.group.name])) for key in self.lines([queue]))

    # -- below -----------------------------------------------------------------------------------------
    def _by_stream(self, tags: Iterable[str]) -> Iterable[tuple[str, list[Any]]]:
        streams: defaultdict[str, list[Any]] = defaultdict(list)
        for tag in tags:
            line, entry_id = Line.of_tag(tag)
            streams[self.key(line)].append(entry_id)
        return streams.items()

    def _requeue_all(self, queues: Iterable[str], chosen: list[Any], *, failed: bool) -> int:
        lines = list(self.lines(queues).values())
        with self.client.pipeline(transaction=False) as pipe:
            for line in lines:
                self._send_requeue(pipe, line, chosen, failed=failed)
            return self._moved(lines, pipe.execute())

    def _send_requeue(
        self, pipe: Any, line: Line, chosen: list[Any], *, failed: bool, allowed: int | None = None
    ) -> None:
        group = self.group
        keys = [self.key(line), group.prefix + dead_letter_key(line.queue)]
        limit = group.max_deliveries if allowed is None else allowed
        self._requeue(
            keys=keys, args=[group.name, limit, int(failed), group.dead_letters_kept, *chosen], client=pipe
        )

    def _moved(self, lines: list[Line], replies: list[list[int]]) -> int:
        for line, (_, buried) in zip(lines, replies, strict=True):
            if buried:
                where = self.group.prefix + dead_letter_key(line.queue)
                logger.warning(
                    "messages of %s that failed for good: %d; they are now in %s", line.queue, buried, where
                )
        return sum(moved for moved, _ in replies)

    def _remove(self, consumers: Iterable[tuple[str, str]]) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for key, consumer in consumers:
                self._leave(keys=[key], args=[self.group.name, consumer], client=pipe)
            pipe.execute()


def claimed(reply: Any) -> Iterator[Entry]:
    """The entries in a reply to the claim command."""
    for key, entry_id, fields in reply or []:
        yield Entry(_text(key), _text(entry_id), _pairs(fields))


def arrived(reply: Any) -> Iterator[Entry]:
    """The entries in a reply to the wait command, which is a map in RESP3 and a list of pairs in RESP2."""
    for key, entries in reply.items() if isinstance(reply, dict) else reply or []:
        for entry_id, fields in entries:
            yield Entry(_text(key), _text(entry_id), _pairs(fields))


def _pairs(flat: list[str | bytes]) -> dict[str, str]:
    texts = [_text(item) for item in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _text(reply: str | bytes) -> str:
    """What is no text becomes one that no reader takes for a message: it must not hide its neighbours."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def _without_groups(pipe: Any) -> list[Any]:
    """The replies to commands of which some may name a group that is gone, and its entries with it."""
    replies = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("NOGROUP"):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def _waiting(length: Any, pending: Any) -> int:
    if isinstance(length, Exception):
        raise length
    # Nobody has consumed this stream yet if it has no group: then everything waits.
    claimed_already = 0 if isinstance(pending, Exception) else int(pending["pending"])
    return max(int(length) - claimed_already, 0)
