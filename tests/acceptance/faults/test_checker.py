"""The judge is judged: it acquits a run in which all went well, and convicts each way to break a promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.faults.checker import (
    GROWTH,
    REFUSED_WITHIN,
    Kind,
    callbacks_are_in_order,
    counts,
    every_end_is_told_once,
    judge,
    recoveries,
)
from tests.acceptance.faults.evidence import Ending, Evidence, Fact
from tests.acceptance.faults.ledger import Line

#: A task that needed two attempts because its worker, process 7, was killed; the clocks differ by 1,000 s.
LINES = [
    Line(0.0, 1, "opened", {"wall": 1_000.0}),
    Line(1.0, 1, "accepted", {"session": "a", "task": "t1", "key": "k1", "stamp": "k1", "agent": "work"}),
    Line(2.0, 7, "began", {"session": "a", "task": "t1", "attempt": 1, "agent": "work"}),
    Line(3.0, 1, "killed", {"name": "async-1", "pids": [7]}),
    Line(5.0, 8, "began", {"session": "a", "task": "t1", "attempt": 2, "agent": "work"}),
    Line(6.0, 8, "ended", {"task": "t1", "attempt": 2}),
    *(
        Line(7.0, 1, "seen", {"session": "a", "through": way, "seq": seq, "id": f"t1:{seq}", "task": "t1"})
        for way in ("feed", "relay")
        for seq in range(1, 6)
    ),
    Line(8.0, 1, "delivered", {"session": "a", "seq": 5, "type": "task.completed", "task": "t1"}),
    Line(8.1, 1, "acked", {"session": "a", "seq": 5}),
    Line(9.0, 1, "refused", {"session": "a", "seconds": 1.0, "why": "Redis is away"}),
    Line(0.5, 1, "memory", {"name": "async-2", "of": 8, "bytes": 70_000_000}),
    Line(9.9, 1, "memory", {"name": "async-2", "of": 8, "bytes": 75_000_000}),
]
TYPES = ["task.queued", "task.started", "task.attempt_lost", "task.started", "task.completed"]
LOG = [
    Fact(n, f"t1:{n}", type_, "t1", 1 if n <= 3 else 2, 1_000.0 + n + (n == 3))
    for n, type_ in enumerate(TYPES, 1)
]
COUNTS = Counter(TYPES)
FINE = Evidence(
    LINES, {"t1": Ending("a", "completed", "k1")}, {"a": LOG}, {"a": []}, COUNTS, limits={"work": 1}
)


def with_line(what: str, at: float = 9.0, pid: int = 9, **facts: Any) -> Evidence:
    return replace(FINE, lines=[*LINES, Line(at, pid, what, facts)])


def without(what: str, **facts: Any) -> Evidence:
    left = [
        line for line in LINES if line.what != what or any(line.facts.get(k) != v for k, v in facts.items())
    ]
    assert len(left) < len(LINES)
    return replace(FINE, lines=left)


def with_log(*log: Fact) -> Evidence:
    seen = [line for line in LINES if line.what != "seen"]
    return replace(FINE, lines=seen, logs={"a": list(log)})


OTHER = {"session": "b", "seq": 1, "id": "t1:9", "task": "t1"}
CRIMES: dict[str, tuple[Evidence, Kind]] = {
    "a task that is forgotten": (replace(FINE, records={}), Kind.LOST),
    "a task that never ends": (replace(FINE, records={"t1": Ending("a", "running")}), Kind.LOST),
    "an end that no event tells": (with_log(*LOG[:4]), Kind.LOST),
    "an end that is not counted": (replace(FINE, counts=COUNTS - Counter(TYPES[-1:])), Kind.LOST),
    "an attempt that is counted twice": (
        replace(FINE, counts=COUNTS + Counter(TYPES[1:2])),
        Kind.DUPLICATED,
    ),
    "an event that was trimmed": (with_log(*LOG[1:]), Kind.OUT_OF_ORDER),
    "two ends": (with_log(*LOG, Fact(6, "t1:6", "task.failed", "t1")), Kind.DUPLICATED),
    "two events of one id": (with_log(*LOG, LOG[1]._replace(seq=6)), Kind.DUPLICATED),
    "another one's result": (replace(FINE, records={"t1": Ending("a", "completed", "k2")}), Kind.FOREIGN),
    "a key with two tasks": (
        with_line("accepted", session="a", task="t2", key="k1", stamp="k1"),
        Kind.DUPLICATED,
    ),
    "an event that a follower missed": (without("seen", through="relay", seq=3), Kind.LOST),
    "an event seen twice": (
        with_line("seen", session="a", through="feed", seq=5, id="t1:5", task="t1"),
        Kind.DUPLICATED,
    ),
    "events in the wrong order": (replace(FINE, lines=[*reversed(LINES)]), Kind.OUT_OF_ORDER),
    "an event out of nowhere": (
        with_line("seen", session="a", through="feed", seq=6, id="t1:6", task="t1"),
        Kind.FOREIGN,
    ),
    "a result that is not delivered": (without("delivered"), Kind.LOST),
    "a result that comes again": (
        with_line("delivered", session="a", seq=5, type="task.completed", task="t1"),
        Kind.DUPLICATED,
    ),
    "an ack that is forgotten": (replace(FINE, inboxes={"a": [5]}), Kind.DUPLICATED),
    "news of another session": (with_line("delivered", **OTHER, type="task.completed"), Kind.FOREIGN),
    "a log with another's events": (replace(FINE, logs={"a": LOG, "b": [LOG[0]]}), Kind.FOREIGN),
    "two at once where one may": (
        with_line("began", at=5.5, session="a", task="t2", attempt=1, agent="work"),
        Kind.OVER_LIMIT,
    ),
    "a key that is left": (replace(FINE, leftovers=["leases"]), Kind.LEAKED),
    "memory": (with_line("memory", name="async-2", of=8, bytes=75_000_000 + GROWTH), Kind.LEAKED),
    "a worker that hangs": (with_line("healed", seconds=20.0, idle=["async-1"], after="drop"), Kind.STUCK),
    "a slow refusal": (with_line("refused", session="a", seconds=REFUSED_WITHIN + 1, why=""), Kind.SLOW),
}


def test_a_run_in_which_all_went_well() -> None:
    assert judge(FINE) == []
    assert recoveries(FINE) == [2.0]  # from the kill to the next attempt


def told(*seqs: tuple[str, str, str], calls: tuple[str, ...] = ("t1", "t2")) -> Evidence:
    """Two tasks have ended, first t1, then t2; these events, by task, type and end of the id, tell of it."""
    ends = [Fact(n, f"t{n}:1:completed", "task.completed", f"t{n}") for n in (1, 2)]
    news = [
        Fact(n, f"{task}:on_complete:{word}", type_, task) for n, (task, type_, word) in enumerate(seqs, 3)
    ]
    accepted = [
        Line(1.0, 1, "accepted", {"session": "a", "task": f"t{n}", "stamp": "k", "agent": "work"})
        for n in (1, 2)
    ]
    called = [Line(2.0, 1, "called", {"session": "a", "key": f"{task}:on_complete"}) for task in calls]
    records = {f"t{n}": Ending("a", "completed", "k") for n in (1, 2)}
    return Evidence([*accepted, *called], records, {"a": [*ends, *news]}, telling=["work"])


def said(task: str) -> tuple[str, str, str]:
    return task, "session.message", "1"


def over(task: str, fence: int = 1) -> tuple[str, str, str]:
    return task, "callback.succeeded", f"{fence}:succeeded"


CALLBACKS = {
    "all is well": (told(said("t1"), over("t1"), said("t2"), over("t2")), None),
    "one was given up": (told(("t1", "callback.dead", "5:dead"), said("t2"), over("t2")), None),
    "one is lost": (told(said("t1"), over("t1")), Kind.LOST),
    "one is committed twice": (
        told(said("t1"), over("t1"), over("t1", 2), said("t2"), over("t2")),
        Kind.DUPLICATED,
    ),
    "one was never called": (
        told(said("t1"), over("t1"), said("t2"), over("t2"), calls=("t1",)),
        Kind.LOST,
    ),
    "what one said is lost": (told(over("t1"), said("t2"), over("t2")), Kind.LOST),
    "the second is first": (told(said("t2"), over("t2"), said("t1"), over("t1")), Kind.OUT_OF_ORDER),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_what_callbacks_may_not_do(name: str) -> None:
    evidence, kind = CALLBACKS[name]
    found = {
        each.kind for check in (every_end_is_told_once, callbacks_are_in_order) for each in check(evidence)
    }
    assert found == ({kind} if kind else set())


@pytest.mark.parametrize("name", CRIMES)
def test_each_crime_is_found(name: str) -> None:
    evidence, kind = CRIMES[name]
    found = judge(evidence)
    assert counts(found)[kind], found


def test_what_does_not_count_against_a_limit() -> None:
    """A body that was killed, and one that goes on after the record has given it up."""
    killed = with_line("began", at=2.5, pid=7, session="a", task="t2", attempt=1, agent="work")
    assert counts(judge(killed))[Kind.OVER_LIMIT] == 1  # both ran until the kill at 3.0
    later = with_line("began", at=3.5, pid=9, session="a", task="t2", attempt=1, agent="work")
    assert counts(judge(later))[Kind.OVER_LIMIT] == 1  # it has no end, so it still runs at 5.0
    log = [*LOG[:2], Fact(3, "t1:3", "task.attempt_lost", "t1", 1, 1_004.0), *LOG[3:]]
    asleep = [line for line in LINES if line.what != "killed"]  # stopped, and given up at 4.0
    assert counts(judge(replace(FINE, lines=asleep, logs={"a": log})))[Kind.OVER_LIMIT] == 0
