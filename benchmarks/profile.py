"""Where the time of a task goes: `bin/bench profile [dispatch batch roundtrip burst drain]`.

Each scenario runs twice. The first time tells the processor time of one task in the parent, in the worker and
in Redis, and what Redis did for it; the second time, slower, tells on what it is spent: by cProfile in the
parent, by py-spy in the worker, if that is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import Child, paused
from benchmarks.stage import Stage, opened
from benchmarks.stamps import Stamps
from hermes_async.bootstrap import connect
from hermes_async.core.session import Session

#: Samples of py-spy a second, lines of each table, and seconds that a worker has for a scenario.
RATE, LINES, PATIENCE = 200, 30, 120.0
#: Seconds that py-spy needs to begin.
ATTACHING = 1.5
#: Functions that do nothing but wait.
WAITING = {"EpollSelector.select", "KqueueSelector.select", "_epoll.poll", "Condition.wait"}


async def _dispatch(session: Session, count: int) -> None:
    for _ in range(count):
        await session.dispatch("noop")


async def _batch(session: Session, count: int) -> None:
    await session.dispatch_many("noop", [{}] * count)


async def _roundtrip(session: Session, count: int) -> None:
    for _ in range(count):
        await (await session.dispatch("noop"))


async def _burst(session: Session, count: int) -> None:
    inputs = [{"number": number, "seconds": 1.0} for number in range(count)]
    await asyncio.gather(*await session.dispatch_many("nap", inputs))


async def _fill(session: Session, count: int) -> None:
    await session.dispatch_many("mark", [{"number": number} for number in range(count)])


@dataclass(frozen=True)
class Scenario:
    """What a parent does, how often, and with how many slots of a worker; 0: without one."""

    act: Callable[[Session, int], Awaitable[None]]
    count: int
    slots: int = 0
    #: The worker sleeps while the parent acts; only what it does afterwards is measured.
    afterwards: bool = False


SCENARIOS = {
    "dispatch": Scenario(_dispatch, 3_000),
    "batch": Scenario(_batch, 3_000),
    "roundtrip": Scenario(_roundtrip, 1_000, slots=300),
    "burst": Scenario(_burst, 3_000, slots=3_000),
    "drain": Scenario(_fill, 20_000, slots=300, afterwards=True),
}


class Spent:
    """Processor seconds of parent, worker and Redis, and microseconds of each command of Redis, until now."""

    def __init__(self, stage: Stage, worker: Child | None) -> None:
        info = stage.info()
        times = [each.cpu_times() for each in worker.processes] if worker else []
        self.seconds = {
            "parent": time.process_time(),
            "worker": sum(each.user + each.system for each in times),
            "redis": info["used_cpu_user"] + info["used_cpu_sys"],
        }
        self.commands = Counter({name: stat["usec"] for name, stat in _stats(info)})
        self.calls = Counter({name: stat["calls"] for name, stat in _stats(info)})

    def since(self, before: Spent, count: int) -> Iterator[str]:
        """Yield lines that tell what one of `count` tasks has cost."""
        each = {name: 1e6 * (now - before.seconds[name]) / count for name, now in self.seconds.items()}
        yield "processor time of one task: " + ", ".join(f"{name} {us:,.0f} µs" for name, us in each.items())
        yield "commands of Redis (those that a script calls count for the script, too):"
        for name, usec in (self.commands - before.commands).most_common(LINES):
            calls = self.calls[name] - before.calls[name]
            yield (
                f"{usec / count:8.1f} µs a task  {calls / count:6.2f} calls a task  "
                f"{usec / calls:7.1f} µs a call  {name}"
            )


def _stats(info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key.removeprefix("cmdstat_"), info[key]) for key in info if key.startswith("cmdstat_"))


def main() -> None:
    """Profile what was asked for."""
    parser = argparse.ArgumentParser(prog="bin/bench profile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)} (default: all)")
    names = parser.parse_args().names or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there is {', '.join(SCENARIOS)}")
    with opened() as stage:
        for name in names:
            _profile(stage, name, SCENARIOS[name])


def _profile(stage: Stage, name: str, scenario: Scenario) -> None:
    stage.flush()
    profile = cProfile.Profile()
    stacks = stage.folder / f"{name}.stacks"
    with stage.ours(slots=scenario.slots) if scenario.slots else nullcontext([None]) as (worker,):
        spent = asyncio.run(_acted(stage, scenario, worker, nullcontext()))
        print(f"\n== {name}: {scenario.count:,} tasks", *spent, sep="\n")
        with _sampled(worker, stacks):
            asyncio.run(_acted(stage, scenario, worker, profile))
    if not scenario.afterwards:
        _print_parent(profile)
    if stacks.exists():
        _print_worker(stacks)


async def _acted(
    stage: Stage, scenario: Scenario, worker: Child | None, profile: AbstractContextManager[object]
) -> list[str]:
    """Do what a parent does, watched by `profile`, and return what it has cost."""
    async with connect(stage.settings) as hermes:
        session = hermes.session("profile")
        warm = [await session.dispatch("noop") for _ in range(20)]
        if worker is None:
            before = Spent(stage, worker)
            with profile:
                await scenario.act(session, scenario.count)
            return list(Spent(stage, worker).since(before, scenario.count))
        await asyncio.gather(*warm)
        return await _worked(stage, scenario, worker, session, profile)


async def _worked(
    stage: Stage,
    scenario: Scenario,
    worker: Child,
    session: Session,
    profile: AbstractContextManager[object],
) -> list[str]:
    stamps = Stamps(stage.stamps)
    before = Spent(stage, worker)
    with paused(worker) if scenario.afterwards else profile:
        await scenario.act(session, scenario.count)
        if scenario.afterwards:
            before = Spent(stage, worker)
    if scenario.afterwards:
        await asyncio.to_thread(stamps.wait, scenario.count, PATIENCE)
    return list(Spent(stage, worker).since(before, scenario.count))


@contextmanager
def _sampled(worker: Child | None, stacks: Path) -> Iterator[None]:
    """Let py-spy watch a worker, if both are there."""
    command = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if worker is None or command is None:
        yield
        return
    argv = [command, "record", "--pid", str(worker.processes[0].pid), "--rate", str(RATE)]
    argv += ["--threads", "--function", "--format", "raw", "--output", str(stacks), "--duration", "600"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
        time.sleep(ATTACHING)
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)  # it then writes what it has seen


def _print_parent(profile: cProfile.Profile) -> None:
    print("the parent by cProfile, which makes calls look dearer than they are:")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(LINES)


def _print_worker(stacks: Path) -> None:
    """Print each function's share of the samples, by itself and with all that it calls; waiting left out."""
    alone, whole, threads = Counter[str](), Counter[str](), Counter[str]()
    for line in stacks.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *frames = (name.rpartition(":")[0] or name for name in stack.split(";"))
        if frames and frames[-1].partition(" ")[0] in WAITING:
            continue
        threads[thread] += int(samples)
        alone[frames[-1] if frames else thread] += int(samples)
        for frame in set(frames):
            whole[frame] += int(samples)
    for title, counted in (("thread", threads), ("function alone", alone), ("function with callees", whole)):
        print(f"the worker by py-spy, by {title}:")
        for name, seen in counted.most_common(LINES if counted is not whole else 3 * LINES):
            print(f"{100 * seen / threads.total():6.1f} %  {name}")


if __name__ == "__main__":
    main()
