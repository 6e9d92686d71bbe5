"""What may go wrong, one context manager each, and a schedule of it that a seed repeats."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

from tests.acceptance.faults.messages import deliver
from tests.acceptance.faults.stage import Stage
from tests.support.proxy import Mode

#: Entering it breaks something, leaving it heals; the number picks the victim.
Fault = Callable[[Stage, int], AbstractContextManager[None]]


def killed(kind: str) -> Fault:
    """kill -9 of a process; a supervisor starts it again."""

    @contextmanager
    def fault(stage: Stage, pick: int) -> Iterator[None]:
        name = _picked(stage, kind, pick)
        stage.kill(name)
        yield
        stage.start(name)

    return fault


def stopped(kind: str) -> Fault:
    """SIGSTOP of a process for longer than its lease, after which it believes that all is as before."""

    @contextmanager
    def fault(stage: Stage, pick: int) -> Iterator[None]:
        process = stage.processes[_picked(stage, kind, pick)]
        process.signal(signal.SIGSTOP)
        yield
        process.signal(signal.SIGCONT)

    return fault


def network(mode: Mode) -> Fault:
    """The network between Redis and everybody fails in this way."""

    @contextmanager
    def fault(stage: Stage, pick: int) -> Iterator[None]:
        stage.proxy.set(mode)
        yield
        stage.proxy.set(Mode.PASS)

    return fault


@contextmanager
def child_killed(stage: Stage, pick: int) -> Iterator[None]:
    """kill -9 of a pool process; the worker itself replaces it."""
    stage.kill_child(_picked(stage, "process", pick), pick)
    yield


@contextmanager
def redis_restarted(stage: Stage, pick: int) -> Iterator[None]:
    """An operator restarts Redis."""
    stage.server.stop()
    yield
    stage.server.start()


@contextmanager
def redis_killed(stage: Stage, pick: int) -> Iterator[None]:
    """kill -9 of Redis; its append-only file has all that it confirmed."""
    stage.server.kill()
    yield
    stage.server.start()


@contextmanager
def delivered_again(stage: Stage, pick: int) -> Iterator[None]:
    """Messages of tasks that wait, run or ended long ago are on the broker once more."""
    accepted = [line for line in stage.ledger.read() if line.what == "accepted"]
    for line in random.Random(pick).sample(accepted, min(20, len(accepted))):
        deliver(stage.server, line.task, line.agent)
    yield


FAULTS: dict[str, Fault] = {
    "worker killed": killed("async"),
    "prefork main killed": killed("process"),
    "pool child killed": child_killed,
    "caller killed": killed("callbacks"),
    "relay killed": killed("relay"),
    "parent killed": killed("parent"),
    "worker stopped": stopped("async"),
    "parent stopped": stopped("parent"),
    "caller stopped": stopped("callbacks"),
    "relay stopped": stopped("relay"),
    "delivered again": delivered_again,
    "redis restarted": redis_restarted,
    "redis killed": redis_killed,
    **{f"network {mode}": network(mode) for mode in Mode if mode is not Mode.PASS},
}
#: A second fault may come with these, which concern processes; they are healed last.
PROCESSES = [name for name in FAULTS if not name.startswith(("redis", "network"))]

#: Seconds within which every worker must have found back to work.
STUCK_AFTER = 20.0


def _picked(stage: Stage, kind: str, pick: int) -> str:
    names = stage.named(kind)
    return names[pick % len(names)]


class Step(NamedTuple):
    """Seconds of peace, then these faults at once for some seconds."""

    peace: float
    lasts: float
    faults: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.peace:.1f} s peace, {self.lasts:.1f} s {' + '.join(name for name, _ in self.faults)}"


def schedule(seed: int, seconds: float) -> list[Step]:
    """Return what happens in so many seconds: each fault in turn, in an order and at moments of the seed."""
    chance, steps, names = random.Random(seed), list[Step](), list[str]()
    while sum(step.peace + step.lasts for step in steps) < seconds:
        names = names or chance.sample(list(FAULTS), len(FAULTS))
        chosen = [names.pop()]
        if chosen[0] not in PROCESSES and chance.random() < 0.3:
            chosen.insert(0, chance.choice(PROCESSES))
        faults = tuple((name, chance.randrange(1_000)) for name in chosen)
        steps.append(Step(chance.uniform(1.0, 3.0), chance.uniform(0.5, 4.5), faults))
    return steps


def torment(stage: Stage, steps: list[Step], say: Callable[[str], None]) -> None:
    """Do what the schedule says; whoever has died by an agent's hand is revived before."""
    for step in steps:
        time.sleep(step.peace)
        stage.revive()
        say(str(step))
        with ExitStack() as healing:
            for name, pick in step.faults:
                stage.ledger.write("fault", name=name)
                healing.enter_context(FAULTS[name](stage, pick))
            time.sleep(step.lasts)
        if not _all_at_work(stage, str(step)):
            break  # that will not do it any good
    stage.revive()


def _all_at_work(stage: Stage, after: str) -> bool:
    """Wait until every worker has begun a task again, and note how long that took or who never did."""
    healed, place, idle = time.monotonic(), stage.ledger.size, set(_workers(stage))
    while idle and time.monotonic() < healed + STUCK_AFTER:
        time.sleep(0.1)
        stage.revive()
        began = {line.pid for line in stage.ledger.read(place) if line.what == "began"}
        idle &= {name for name in _workers(stage) if began.isdisjoint(stage.pids(name))}
    took = time.monotonic() - healed
    stage.ledger.write("healed", seconds=took, idle=sorted(idle), after=after)
    return not idle


def _workers(stage: Stage) -> list[str]:
    return stage.named("async") + stage.named("process")
