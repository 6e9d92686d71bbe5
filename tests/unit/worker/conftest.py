"""A pool inside this process, driven through the interface Celery uses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from billiard.einfo import ExceptionWithTraceback
from celery import Celery
from celery.app.trace import trace_task_ret

from hermes_async.worker import tracer
from hermes_async.worker.pool import AsyncioPool
from tests.support.servers import wait_until


def raised(info: Any) -> BaseException:
    """The exception itself; billiard wraps it to carry its traceback."""
    wrapped = info.exception
    return wrapped.exc if isinstance(wrapped, ExceptionWithTraceback) else wrapped


class Outcome:
    """What Celery is told about one job."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.pid = 0
        self.events: list[str] = []
        self.value: Any = None
        self.error: Any = None

    def accepted(self, pid: int, _: float) -> None:
        self.pid = pid
        self.events.append("accepted")

    def succeeded(self, result: tuple[int, Any, float]) -> None:
        failed, self.value, _ = result
        self.error = raised(self.value) if failed else None
        self.events.append("failed" if failed else "succeeded")

    def lost(self, info: Any) -> None:
        self.error = raised(info)
        self.events.append("lost")

    def timed_out(self, soft: bool, _: float) -> None:
        self.events.append("soft" if soft else "hard")

    def settled(self) -> bool:
        return self.events[-1:] in (["succeeded"], ["failed"], ["lost"], ["hard"])


class Bench:
    """A pool with a Celery app of its own."""

    def __init__(self, limit: int, bodies: Iterable[Callable[..., Any]] = (), **options: Any) -> None:
        self.app = Celery("bench", broker="memory://", set_as_current=False)
        self.app.conf.update(task_ignore_result=True)
        for function in bodies:
            self.add(function)
        self.app.finalize()
        self.pool = AsyncioPool(limit, app=self.app, initargs=(self.app, "bench"), **options)
        self.pool.start()

    def add(self, function: Callable[..., Any], **options: Any) -> None:
        bind = getattr(function, "bind", False)
        self.app.task(name=options.pop("name", function.__name__), bind=bind, shared=False, **options)(
            function
        )

    def run(self, function: Callable[..., Any], *args: Any, **limits: float) -> Outcome:
        task_id = str(uuid4())
        outcome = Outcome(task_id)
        request = {"id": task_id, "task": function.__name__, "args": args, "kwargs": {}, "delivery_info": {}}
        embed: dict[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        self.pool.apply_async(
            partial(trace_task_ret, app=self.app),
            args=(function.__name__, task_id, request, (args, {}, embed), None, None),
            accept_callback=outcome.accepted,
            callback=outcome.succeeded,
            error_callback=outcome.lost,
            timeout_callback=outcome.timed_out,
            **limits,
        )
        return outcome

    def result(self, function: Callable[..., Any], *args: Any, **limits: float) -> Outcome:
        outcome = self.run(function, *args, **limits)
        wait_until(outcome.settled)
        return outcome


@pytest.fixture
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A pool of four slots with the bodies of the test's module; nothing of it is left after the test."""
    monkeypatch.setattr(tracer, "INSIST_EVERY", 0.2)
    before = set(threading.enumerate())
    bench = Bench(4, request.module.BODIES)
    yield bench
    bench.pool.terminate()
    assert set(threading.enumerate()) - before == set()
    assert bench.pool.loop.is_closed()
