"""The supervisor with trivial children: start, restart, order of stopping, and nobody left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hermes_async.cli.supervisor import ChildSpec, GaveUp, Policy, Supervisor
from hermes_async.domain.errors import ConfigError
from tests.support.servers import Process, wait_until, wait_until_async

POLICY = Policy(backoff_first=0.05, backoff_longest=0.2, steady_after=60, give_up_after=3)
SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(60)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"


class Notes:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notices: list[str] = []
        self.readies: list[str] = []

    def line(self, child: str, text: str) -> None:
        self.lines.append(f"{child}: {text}")

    def ready(self, child: str, text: str) -> None:
        self.readies.append(child)

    def notice(self, child: str, text: str) -> None:
        self.notices.append(f"{child} {text}")


def spec(name: str, code: str, patience: float = 5.0) -> ChildSpec:
    return ChildSpec(
        name,
        (sys.executable, "-S", "-c", code),
        is_ready=lambda line: line == "up",
        stop_signals=((signal.SIGTERM, patience),),
    )


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def run_supervisor(waves: list[list[ChildSpec]], then: Callable[[Supervisor], object]) -> Notes:
    """Run the children, do something when all are ready, and return what was heard."""
    notes = Notes()

    async def body() -> None:
        supervisor = Supervisor(waves, notes, POLICY)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(10):
            await supervisor.ready()
        result = then(supervisor)
        if asyncio.iscoroutine(result):
            await result
        async with asyncio.timeout(10):
            await running

    asyncio.run(body())
    return notes


def test_starts_all_and_stops_all() -> None:
    pids: list[int] = []

    def stop(supervisor: Supervisor) -> None:
        pids.extend(child.pid or 0 for child in supervisor.children)
        supervisor.stop()

    notes = run_supervisor([[spec("a", SLEEPER)], [spec("b", SLEEPER)]], stop)
    assert sorted(notes.readies) == ["a", "b"]
    assert all(gone(pid) for pid in pids)
    assert notes.notices == []  # an ordered end is no news


def test_stops_the_last_wave_first() -> None:
    told = "import os, signal, sys, time\ndef end(*_):\n    os.write(1, b'end\\n'); sys.exit()\n"
    told += "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(60)"
    notes = run_supervisor([[spec("first", told)], [spec("second", told)]], Supervisor.stop)
    assert [line for line in notes.lines if line.endswith("end")] == ["second: end", "first: end"]


def test_starts_again_what_dies() -> None:
    async def kill_one(supervisor: Supervisor) -> None:
        (child,) = supervisor.children
        before = child.pid
        os.kill(before or 0, signal.SIGKILL)
        await wait_until_async(lambda: child.pid not in (before, None))
        await wait_until_async(lambda: len(notes_of(child).readies) == 2)
        supervisor.stop()

    notes = run_supervisor([[spec("a", SLEEPER)]], kill_one)
    assert notes.notices == ["a was killed by SIGKILL; starting it again in 0.05 s"]


def notes_of(child: object) -> Notes:
    return child._listener  # type: ignore[attr-defined,no-any-return]


def test_backs_off_and_gives_up_on_what_never_starts() -> None:
    notes = Notes()
    specs = [spec("good", SLEEPER), spec("bad", "raise SystemExit(7)")]

    async def body() -> list[int | None]:
        supervisor = Supervisor([specs], notes, POLICY)
        with pytest.raises(GaveUp, match=r"bad ended with code 7 3 times before it was ready"):
            async with asyncio.timeout(10):
                await supervisor.run()
        return [child.pid for child in supervisor.children]

    assert asyncio.run(body()) == [None, None]
    assert [notice for notice in notes.notices if "bad" in notice] == [
        "bad ended with code 7; starting it again in 0.05 s",
        "bad ended with code 7; starting it again in 0.1 s",
    ]


def test_a_child_that_is_configured_wrongly_is_not_started_again() -> None:
    notes = Notes()
    bad = spec("bad", "import sys; print('hermes-async: no such agent', file=sys.stderr); sys.exit(2)")

    async def body() -> None:
        with pytest.raises(ConfigError, match=r"^no such agent$"):
            async with asyncio.timeout(10):
                await Supervisor([[spec("good", SLEEPER), bad]], notes, POLICY).run()

    asyncio.run(body())
    assert notes.notices == []


def test_a_child_that_was_ready_is_started_again_though_its_configuration_is_wrong_now(
    tmp_path: Path,
) -> None:
    """Somebody edits a file: what still runs must not stop because of it."""
    first = tmp_path / "first"
    code = (
        f"import pathlib, sys, time\nfirst = pathlib.Path({str(first)!r})\n"
        "if first.exists(): print('hermes-async: no such agent'); sys.exit(2)\n"
        "first.touch()\nprint('up', flush=True)\ntime.sleep(60)"
    )

    async def kill_and_mend(supervisor: Supervisor) -> None:
        [child] = supervisor.children
        os.kill(child.pid or 0, signal.SIGKILL)
        await wait_until_async(lambda: any("code 2; starting" in said for said in notes_of(child).notices))
        first.unlink()
        await wait_until_async(lambda: len(notes_of(child).readies) == 2)
        supervisor.stop()

    run_supervisor([[spec("a", code)]], kill_and_mend)


def test_kills_what_does_not_stop_in_time() -> None:
    began = time.monotonic()
    notes = run_supervisor([[spec("deaf", STUBBORN, patience=0.2)]], Supervisor.stop)
    assert notes.notices == ["deaf did not stop in time: killed"]
    assert time.monotonic() - began < 5


def test_kill_does_not_wait() -> None:
    async def stop_then_kill(supervisor: Supervisor) -> None:
        supervisor.stop()
        await asyncio.sleep(0.1)
        supervisor.kill()

    began = time.monotonic()
    run_supervisor([[spec("deaf", STUBBORN, patience=30)]], stop_then_kill)
    assert time.monotonic() - began < 5


def test_takes_the_children_of_a_child_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(grandchild.pid))\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    run_supervisor([[spec("a", code)]], Supervisor.stop)
    wait_until(lambda: gone(int(note.read_text())))


def test_shows_every_line_even_a_broken_or_endless_one() -> None:
    code = (
        "import sys, time\nprint('up', flush=True)\n"
        "sys.stdout.buffer.write(b'\\xff\\n' + b'x' * 100_000 + b'\\nlast')\nsys.stdout.flush()\n"
        "time.sleep(60)"
    )

    async def read(supervisor: Supervisor) -> None:
        await wait_until_async(lambda: sum(map(len, heard.lines)) > 90_000)
        supervisor.stop()

    heard = Notes()

    async def body() -> None:
        supervisor = Supervisor([[spec("a", code)]], heard, POLICY)
        async with asyncio.timeout(20):
            await asyncio.gather(supervisor.run(), read(supervisor))

    asyncio.run(body())
    assert heard.lines[:2] == ["a: up", "a: \ufffd"]
    assert sum(line.count("x") for line in heard.lines) == 100_000
    assert heard.lines[-1] == "a: last"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux'")
@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_nobody_survives_a_kill_of_the_supervisor(number: int, spawn: Callable[..., Process]) -> None:
    program = (
        "import asyncio, sys\n"
        "from tests.unit.cli.test_supervisor import Notes, POLICY, STUBBORN, spec\n"
        "from hermes_async.cli.supervisor import Supervisor\n"
        "async def body():\n"
        "    supervisor = Supervisor([[spec('a', STUBBORN), spec('b', STUBBORN)]], Notes(), POLICY)\n"
        "    running = asyncio.create_task(supervisor.run())\n"
        "    await supervisor.ready()\n"
        "    print('pids', *(child.pid for child in supervisor.children), flush=True)\n"
        "    await running\n"
        "asyncio.run(body())\n"
    )
    process = spawn([sys.executable, "-c", program])
    process.wait_for_log("pids")
    pids = [int(word) for word in process.log.split("pids")[1].split()]
    process.signal(number)
    process.wait()
    wait_until(lambda: all(gone(pid) for pid in pids), timeout=5)
