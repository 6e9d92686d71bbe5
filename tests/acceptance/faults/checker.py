"""The judge: pure functions from evidence to violations of what DESIGN promises, I1 to I9."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from hermes_async.domain.events import INBOX_TYPES
from hermes_async.domain.lifecycle import TERMINAL_TYPES
from hermes_async.domain.task import TaskStatus
from tests.acceptance.faults.evidence import Evidence, Fact
from tests.acceptance.faults.ledger import Line

#: Seconds within which a dispatch is refused when Redis is away (I7).
REFUSED_WITHIN = 3.0
#: Bytes by which a process may grow (I8).
GROWTH = 100_000_000
FOREVER = float("inf")


class Kind(StrEnum):
    """The second half of the report: what must be zero."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    OUT_OF_ORDER = "out of order"
    FOREIGN = "foreign"
    OVER_LIMIT = "over limit"
    LEAKED = "leaked"
    SLOW = "slow"
    STUCK = "stuck"


class Violation(NamedTuple):
    """A broken promise."""

    kind: Kind
    text: str


Check = Callable[[Evidence], Iterator[Violation]]


def judge(evidence: Evidence) -> list[Violation]:
    """Return everything that is wrong."""
    return [violation for check in CHECKS for violation in check(evidence)]


def every_task_ends_once(evidence: Evidence) -> Iterator[Violation]:
    """I1: what was accepted ends in one status, with one event that says so and the result asked for."""
    ends = Counter(fact.task for _, fact in evidence.facts if fact.type in TERMINAL_TYPES)
    for line in evidence.told("accepted"):
        record = evidence.records.get(line.task)
        if record is None or not TaskStatus(record.status).is_terminal:
            yield Violation(Kind.LOST, f"{line.task} was accepted and is {record and record.status}")
        elif record.status == TaskStatus.COMPLETED and record.output != line.stamp:
            yield Violation(Kind.FOREIGN, f"{line.task} returned {record.output!r}, not {line.stamp!r}")
    for task, count in ends.items():
        if count > 1:
            yield Violation(Kind.DUPLICATED, f"{task} has {count} terminal events")
    for task, record in evidence.records.items():
        if TaskStatus(record.status).is_terminal and not ends[task]:
            yield Violation(Kind.LOST, f"{task} is {record.status}, but no event says so")


def a_key_stands_for_one_task(evidence: Evidence) -> Iterator[Violation]:
    """I1: however often a parent had to ask, its idempotency key made one task."""
    tasks = defaultdict(set)
    for line in evidence.told("accepted"):
        if line.key:
            tasks[line.key].add(line.task)
    for key, ids in tasks.items():
        if len(ids) > 1:
            yield Violation(Kind.DUPLICATED, f"{key} became {len(ids)} tasks")


def every_end_is_told_once(evidence: Evidence) -> Iterator[Violation]:
    """I2: each callback that is due is committed once, after a call, with what it has said."""
    called = {line.key for line in evidence.told("called")}
    commits = Counter(_callback(fact) for _, fact in evidence.facts if fact.type in COMMITS)
    said = Counter(fact.id for _, fact in evidence.facts if fact.type == "session.message")
    dead = {_callback(fact) for _, fact in evidence.facts if fact.type == "callback.dead"}
    for key, count in commits.items():
        if count > 1:
            yield Violation(Kind.DUPLICATED, f"{key} is committed {count} times")
    for key in _due(evidence):
        if not commits[key]:
            yield Violation(Kind.LOST, f"{key} is not committed")
        elif key not in called:
            yield Violation(Kind.LOST, f"{key} is committed without a call")
        elif said[f"{key}:1"] != (key not in dead):
            yield Violation(Kind.LOST, f"{key} was called, and what it said is lost")


def callbacks_are_in_order(evidence: Evidence) -> Iterator[Violation]:
    """I3: the callbacks of a session are committed in the order of the ends of which they tell."""
    due = set(_due(evidence))
    for session, log in evidence.logs.items():
        told = [fact.task for fact in log if fact.type in COMMITS and _callback(fact) in due]
        ended = [fact.task for fact in log if fact.type in TERMINAL_TYPES and fact.task in told]
        if list(dict.fromkeys(told)) != ended:
            yield Violation(Kind.OUT_OF_ORDER, f"the callbacks of {session} are not in the order of the ends")


#: Events with which a callback is over.
COMMITS = {"callback.succeeded", "callback.dead"}


def _callback(fact: Fact) -> str:
    """The callback of which an event tells: its id is `<callback>:<fence>:<what>`."""
    return fact.id.rsplit(":", 2)[0]


def _due(evidence: Evidence) -> Iterator[str]:
    """The callbacks that tell of ends."""
    for task in {line.task for line in evidence.told("accepted") if line.agent in evidence.telling}:
        record = evidence.records.get(task)
        if record and TaskStatus(record.status).is_terminal:
            yield f"{task}:{'on_complete' if record.status == TaskStatus.COMPLETED else 'on_failure'}"


def the_log_is_dense(evidence: Evidence) -> Iterator[Violation]:
    """I3: the numbers of a session's events are 1, 2, 3, ... and each fact is there once."""
    for session, log in evidence.logs.items():
        numbers = [fact.seq for fact in log]
        if numbers != list(range(1, len(log) + 1)):
            yield Violation(Kind.OUT_OF_ORDER, f"the log of {session} is not dense")
        for id_, count in Counter(fact.id for fact in log).items():
            if count > 1:
                yield Violation(Kind.DUPLICATED, f"{id_} is {count} times in the log of {session}")


def the_counts_are_those_of_the_logs(evidence: Evidence) -> Iterator[Violation]:
    """Metrics: an event is counted once, in the moment in which it is logged."""
    logged = Counter(fact.type for _, fact in evidence.facts)
    for type_ in sorted(logged.keys() | evidence.counts.keys()):
        counted = evidence.counts.get(type_, 0)
        if counted != logged[type_]:
            kind = Kind.LOST if counted < logged[type_] else Kind.DUPLICATED
            yield Violation(kind, f"{logged[type_]} {type_} were logged, and {counted} were counted")


def followers_see_the_log(evidence: Evidence) -> Iterator[Violation]:
    """I3: who follows a session sees its log, each event once and in order, whatever breaks in between."""
    seen: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for line in evidence.told("seen"):
        seen[line.session, line.through].append((line.seq, line.id))
    for (session, through), events in seen.items():
        log = [(fact.seq, fact.id) for fact in evidence.logs.get(session, ())]
        yield from _compared(f"the {through} of {session}", events, log)


def _compared(who: str, seen: list[tuple[int, str]], log: list[tuple[int, str]]) -> Iterator[Violation]:
    missed = len(set(log) - set(seen))
    again = len(seen) - len(set(seen))
    if missed:
        yield Violation(Kind.LOST, f"{who} missed {missed} events")
    if again:
        yield Violation(Kind.DUPLICATED, f"{who} saw {again} events again")
    if seen != sorted(seen, key=lambda event: event[0]):
        yield Violation(Kind.OUT_OF_ORDER, f"{who} saw events out of order")
    if set(seen) - set(log):
        yield Violation(Kind.FOREIGN, f"{who} saw events that are not in the log")


def the_inbox_delivers(evidence: Evidence) -> Iterator[Violation]:
    """What a parent must not miss is delivered, at least once."""
    delivered = {(line.session, line.seq) for line in evidence.told("delivered")}
    for session, fact in evidence.facts:
        if fact.type in INBOX_TYPES and (session, fact.seq) not in delivered:
            yield Violation(Kind.LOST, f"{fact.type} {session}/{fact.seq} was never delivered")


def an_ack_is_for_ever(evidence: Evidence) -> Iterator[Violation]:
    """What was acknowledged never comes again."""
    acked: set[tuple[str, int]] = set()
    for line in evidence.lines:
        if line.what == "acked":
            acked.add((line.session, line.seq))
        elif line.what == "delivered" and (line.session, line.seq) in acked:
            yield Violation(Kind.DUPLICATED, f"{line.type} {line.session}/{line.seq} came after its ack")
    left = {(session, seq) for session, seqs in evidence.inboxes.items() for seq in seqs}
    for session, seq in acked & left:
        yield Violation(Kind.DUPLICATED, f"{session}/{seq} is in the inbox after its ack")


def sessions_are_apart(evidence: Evidence) -> Iterator[Violation]:
    """I4: a session hears of its own tasks only."""
    home = {line.task: line.session for line in evidence.told("accepted")}
    told = [(session, fact.task, "log") for session, fact in evidence.facts]
    told += [(line.session, line.task, line.what) for line in evidence.lines if line.what in _HEARD]
    for session, task, where in told:
        if home.get(task, session) != session:
            yield Violation(Kind.FOREIGN, f"{task} of {home[task]} is in the {where} of {session}")


_HEARD = {"seen", "delivered"}


def limits_hold(evidence: Evidence) -> Iterator[Violation]:
    """I5: no more bodies than its limit run at once for an agent in a session."""
    ends = _ends(evidence)
    running: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for line in evidence.told("began"):
        if line.agent in evidence.limits:
            end = min((at for at in ends[_attempt(line)] + ends[line.pid] if at >= line.at), default=FOREVER)
            running[line.session, line.agent] += [(line.at, 1), (end, -1)]
    for (session, agent), steps in running.items():
        most = max(accumulate(step for _, step in sorted(steps)))
        if most > evidence.limits[agent]:
            yield Violation(Kind.OVER_LIMIT, f"{session} ran {most} {agent} at once")


def _ends(evidence: Evidence) -> Mapping[object, list[float]]:
    """When attempts ended or were given up by the record, and when processes were killed.

    What an attempt does after the record has given it up does not count: nothing that it writes is accepted.
    """
    ends: defaultdict[object, list[float]] = defaultdict(list)
    for line in evidence.told("ended"):
        ends[_attempt(line)].append(line.at)
    for line in evidence.told("killed"):
        for pid in line.pids:
            ends[pid].append(line.at)
    offset = next((line.wall - line.at for line in evidence.told("opened")), 0.0)
    for _, fact in evidence.facts:
        if fact.type == "task.attempt_lost":
            ends[fact.task, fact.attempt].append(fact.time - offset)
    return ends


def _attempt(line: Line) -> tuple[str, int]:
    return line.task, line.attempt


def nothing_is_left(evidence: Evidence) -> Iterator[Violation]:
    """I6, I9: no keys, messages, sockets or processes remain."""
    for what in evidence.leftovers:
        yield Violation(Kind.LEAKED, what)


def refusals_are_quick(evidence: Evidence) -> Iterator[Violation]:
    """I7: who cannot be served is told so soon."""
    for line in evidence.told("refused"):
        if line.seconds > REFUSED_WITHIN:
            yield Violation(Kind.SLOW, f"a dispatch was refused after {line.seconds:.1f} s: {line.why}")


def memory_is_bounded(evidence: Evidence) -> Iterator[Violation]:
    """I8: whoever lived through the whole run has not grown much."""
    sizes: dict[tuple[str, int], list[int]] = defaultdict(list)
    for line in evidence.told("memory"):
        sizes[line.name, line.of].append(line.bytes)
    for (name, _), grown in sizes.items():
        if grown[-1] - grown[0] > GROWTH:
            yield Violation(Kind.LEAKED, f"{name} grew by {(grown[-1] - grown[0]) / 1e6:.0f} MB")


def everybody_works_again(evidence: Evidence) -> Iterator[Violation]:
    """After a fault every worker finds back to work by itself."""
    for line in evidence.told("healed"):
        for name in line.idle:
            yield Violation(Kind.STUCK, f"{name} had no task within {line.seconds:.0f} s after: {line.after}")


CHECKS: tuple[Check, ...] = (
    every_task_ends_once,
    a_key_stands_for_one_task,
    every_end_is_told_once,
    callbacks_are_in_order,
    the_log_is_dense,
    the_counts_are_those_of_the_logs,
    followers_see_the_log,
    the_inbox_delivers,
    an_ack_is_for_ever,
    sessions_are_apart,
    limits_hold,
    nothing_is_left,
    refusals_are_quick,
    memory_is_bounded,
    everybody_works_again,
)


def recoveries(evidence: Evidence) -> list[float]:
    """Return, for each attempt that a fault cost, the seconds from the fault to the next beginning."""
    began = {_attempt(line): line for line in evidence.told("began")}
    faults = [line for line in evidence.lines if line.what in ("fault", "killed")]
    found = []
    for _, fact in evidence.facts:
        before, after = began.get((fact.task, fact.attempt)), began.get((fact.task, fact.attempt + 1))
        if fact.type == "task.attempt_lost" and before and after:
            causes = [line for line in faults if before.at < line.at < after.at]
            deaths = [line for line in causes if before.pid in (line.pids or ())]
            found += [after.at - line.at for line in (deaths or causes)[-1:]]
    return sorted(found)


def returns(evidence: Evidence) -> list[float]:
    """Return, for each fault, the seconds from its end until every worker had a task again."""
    return sorted(line.seconds for line in evidence.told("healed") if not line.idle)


def counts(violations: Iterable[Violation]) -> Mapping[Kind, int]:
    """Return how many there are of each kind, all kinds included."""
    found = Counter(violation.kind for violation in violations)
    return {kind: found[kind] for kind in Kind}
