"""`task` and `invoke` over a real Redis; where a worker is needed, the test is one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hermes_async.adapters.trace_files import TraceFiles
from hermes_async.bootstrap import connect
from hermes_async.cli import ids, relayed
from hermes_async.core.hermes import Hermes
from hermes_async.domain.spans import Span
from hermes_async.domain.task import Lane
from hermes_async.settings import Settings
from tests.support.damage import DAMAGES, damage
from tests.support.servers import PATIENCE, Process, RedisServer, wait_until
from tests.unit.cli.conftest import HERMES, Cli, with_hermes

INVOKE = ("invoke", "subagent", "research", "--parent", "parent_agent", "--input", "0")


def create(cli: Cli, *words: str) -> str:
    said = cli("task", "create", *words)
    assert said.code == 0, said.err
    return said.out.strip()


def work(task_id: str) -> None:
    """Run a task as a worker does."""
    asyncio.run(with_hermes(lambda hermes: hermes.runner("the-test", 30.0).run(task_id)))


async def stand(hermes: Hermes, slots: int) -> None:
    """Be a worker with so many slots in each lane; 0: leave."""
    for lane in Lane:
        await hermes.store.enlist(f"the-test {lane}", lane, slots, 30.0)


@contextmanager
def worker() -> Iterator[None]:
    """Run whatever is queued, in a thread."""
    stands, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with connect() as hermes:
            while not stop.is_set():
                await stand(hermes, 8)
                stands.set()
                for task in await hermes.tasks(status="queued"):  # type: ignore[arg-type]
                    await hermes.runner("the-test", 30.0).run(task.id)
                await asyncio.sleep(0.02)
            await stand(hermes, 0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert stands.wait(PATIENCE)
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_damaged_record_is_told_in_one_sentence(online: Path, cli: Cli, redis_server: RedisServer) -> None:
    task_id = create(cli, "parent_agent", "research", "--input", "0", "--async")
    with redis_server.client() as client:
        [key] = client.scan_iter(f"*:task:{task_id}")
        client.delete(key)
        client.set(key, "no hash")
    for command in ("status", "cancel", "result", "events"):
        said = cli("task", command, task_id)
        assert said.code == 70, command
        assert said.err.startswith("hermes-async: Redis at "), command
        assert (said.err.count("\n"), "WRONGTYPE" in said.err) == (1, True), command


def test_create_prints_the_id_and_how_to_watch_it(online: Path, cli: Cli) -> None:
    said = cli("task", "create", "parent_agent", "research", "--input", "0", "--session", "chat-7")
    task_id = said.out.strip()
    assert said.err.splitlines() == [
        f"watch it: hermes-async task watch {task_id} --follow",
        "no worker is running; the task waits for `hermes-async up`",
    ]
    shown = json.loads(cli("task", "status", task_id, "--json").out)
    assert (shown["session_id"], shown["subagent"], shown["status"]) == ("chat-7", "research", "queued")
    assert shown["input"] == {"seconds": "0"} or shown["input"] == {"seconds": 0}


def test_who_waits_for_nobody_is_told_so_once_the_task_is_accepted(
    online: Path, cli: Cli, spawn: Callable[..., Process]
) -> None:
    nobody = "no worker is running; the task waits for `hermes-async up`\n"
    spawn([*HERMES, *INVOKE], {"HERMES_CONFIG": str(online / "agents.yaml")}).wait_for_log(nobody)
    assert nobody not in cli("invoke", "subagent", "nobody", "--input", "0").err
    with worker():
        assert cli(*INVOKE).err == ""
        assert nobody not in cli("task", "create", "parent_agent", "slow", "--input", "0", "--async").err


def test_workers_that_were_all_killed_are_nobody(online: Path, cli: Cli) -> None:
    async def killed(hermes: Hermes) -> None:
        await hermes.store.enlist("killed", Lane.PROCESS, 8, 0.001)

    asyncio.run(with_hermes(killed))
    said = cli("task", "create", "parent_agent", "slow", "--input", "0", "--async")
    assert said.err.endswith("no worker is running; the task waits for `hermes-async up`\n")


def test_status_tells_that_nobody_works_on_a_task_any_more(online: Path, cli: Cli) -> None:
    left, held = (create(cli, "parent_agent", "slow", "--input", "0", "--async") for _ in range(2))

    async def claim(hermes: Hermes) -> None:
        await hermes.store.claim(left, "killed", 0.001)
        await hermes.store.claim(held, "alive", 60.0)

    asyncio.run(with_hermes(claim))
    assert (
        "status\trunning (its worker is gone; the next one takes over)\n" in cli("task", "status", left).out
    )
    assert "status\trunning\n" in cli("task", "status", held).out


def test_create_in_json(online: Path, cli: Cli) -> None:
    said = cli("task", "create", "parent_agent", "research", "--async", "--json")
    receipt = json.loads(said.out)
    assert sorted(receipt) == ["session_id", "status", "task_id", "trace_id"]
    assert (receipt["status"], said.err) == ("queued", "")


def test_the_same_key_is_the_same_task(online: Path, cli: Cli) -> None:
    words = ("parent_agent", "research", "--session", "s", "--idempotency-key", "k", "--input")
    assert create(cli, *words, "1") == create(cli, *words, "1")
    said = cli("task", "create", *words, "2")
    assert said.code == 2
    assert "was used with another input" in said.err


def test_input_from_a_file_and_from_stdin(online: Path, cli: Cli) -> None:
    Path("input.txt").write_text('{"seconds": 0.5}')
    task_id = create(cli, "parent_agent", "research", "--input", "@input.txt")
    assert json.loads(cli("task", "status", task_id, "--json").out)["input"] == {"seconds": 0.5}
    line = [*HERMES, "task", "create", "parent_agent", "research", "--input", "-"]
    piped = subprocess.run(line, input='{"seconds": 0.25}', capture_output=True, text=True, check=True)
    assert json.loads(cli("task", "status", piped.stdout.strip(), "--json").out)["input"] == {"seconds": 0.25}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nobody", "research"), "no agent 'nobody'; there is parent_agent"),
        (
            ("parent_agent", "reserch"),
            "agent 'parent_agent' has no subagent 'reserch'; did you mean 'research'?",
        ),
        (("parent_agent", "research", "--input", "@none.txt"), "--input @none.txt: No such file"),
        (("parent_agent", "research", "--input", "soon"), "wait: seconds: Input should be a valid number"),
        (
            ("parent_agent", "research", "--session", "a\nb"),
            "a session id is a text of 1 to 200 printable characters",
        ),
    ],
)
def test_what_cannot_be_created_is_one_sentence(
    online: Path, cli: Cli, words: tuple[str, ...], sentence: str
) -> None:
    said = cli("task", "create", *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert sentence in said.err


def test_async_false_waits_and_prints_the_result(online: Path, cli: Cli) -> None:
    with worker():
        said = cli("task", "create", "parent_agent", "slow", "--input", "0")
        again = cli("invoke", "subagent", "slow", "--parent", "parent_agent", "--input", "0", "--json")
    assert (said.code, said.err) == (0, "")
    assert int(said.out) >= 0
    assert json.loads(again.out)["status"] == "completed"


def test_the_fate_of_a_task_is_the_exit_code(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "research", "--input", "60")
    unfinished = cli("task", "result", task_id)
    assert (unfinished.code, unfinished.out) == (75, "")
    assert "has not ended: it is queued" in unfinished.err
    assert cli("task", "status", task_id).code == 0
    assert cli("task", "cancel", task_id).out == f"task {task_id} is cancelled\n"
    assert cli("task", "cancel", task_id).out == f"task {task_id} had ended already: cancelled\n"
    for command in ("result", "status", "events"):
        assert cli("task", command, task_id).code == 3
    assert cli("task", "watch", task_id).code == 3


def test_a_result_in_a_pipe_is_exact(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "slow", "--input", "0", "--async")
    work(task_id)
    said = cli("task", "result", task_id)
    assert said.code == 0
    assert said.out.strip().isdigit()
    assert cli("task", "watch", task_id, "--result-only").out == said.out


def test_a_failure_is_told_on_stderr(online: Path, cli: Cli) -> None:
    Path("agents.yaml").write_text(
        'agents: {bad: {run: "examples.basics:fail"}, p: {subagents: [{id: bad}]}}'
    )
    task_id = create(cli, "p", "bad", "--input", "boom")
    work(task_id)
    said = cli("task", "result", task_id)
    assert (said.code, said.out) == (1, "")
    assert said.err == f"hermes-async: task {task_id} of bad failed (error): ValueError: boom\n"


def test_status_shows_the_traceback_of_the_last_failure(online: Path, cli: Cli) -> None:
    Path("agents.yaml").write_text(
        'agents: {bad: {run: "examples.basics:fail"}, p: {subagents: [{id: bad}]}}'
    )
    task_id = create(cli, "p", "bad", "--input", "boom")
    work(task_id)
    shown = cli("task", "status", task_id).out
    assert "error\tValueError: boom\n\tTraceback (most recent call last):\n\t  File " in shown
    assert "\t    raise ValueError(message)\n\tValueError: boom\nagent\tbad\n" in shown
    error = json.loads(cli("task", "status", task_id, "--json").out)["error"]
    assert error["traceback"].endswith("ValueError: boom\n")


def test_events_are_lines_in_a_pipe_and_objects_in_json(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "slow", "--input", "0", "--async")
    work(task_id)
    lines = cli("task", "events", task_id).out.splitlines()
    assert lines[0] == "#1 task.queued slow for parent_agent"
    assert lines[1] == "#2 task.started attempt 1 on the-test"
    assert lines[-1].startswith(f"#{len(lines)} task.completed ")
    objects = [
        json.loads(line) for line in cli("task", "events", task_id, "--after", "1", "--json").out.splitlines()
    ]
    assert [event["seq"] for event in objects] == list(range(2, len(lines) + 1))


def test_list_is_tab_separated_in_a_pipe_and_filters(online: Path, cli: Cli) -> None:
    first = create(cli, "parent_agent", "research", "--session", "one")
    second = create(cli, "parent_agent", "research", "--session", "two")
    rows = [line.split("\t") for line in cli("task", "list").out.splitlines()]
    assert {row[0] for row in rows} == {first, second}
    assert {row[1] for row in rows} == {"queued"}
    assert cli("task", "list", "--session", "one").out.startswith(first)
    assert cli("task", "list", "--status", "running").out == ""
    assert [task["id"] for task in json.loads(cli("task", "list", "--session", "two", "--json").out)] == [
        second
    ]


def test_a_list_that_is_not_all_says_so(online: Path, cli: Cli) -> None:
    for _ in range(3):
        create(cli, "parent_agent", "research")
    said = cli("task", "list", "--limit", "2")
    assert said.out.count("\n") == 2
    assert said.err == "these are the newest 2; --limit shows more\n"
    assert cli("task", "list", "--limit", "3").err == ""
    assert len(json.loads(cli("task", "list", "--limit", "2", "--json").out)) == 2


@pytest.mark.parametrize("command", ["status", "result", "events", "cancel", "watch"])
def test_an_unknown_task_is_one_sentence(online: Path, cli: Cli, command: str) -> None:
    nonsense = cli("task", command, "nonsense")
    assert (nonsense.code, nonsense.out, nonsense.err.count("\n")) == (2, "", 1)
    assert "no task begins with 'nonsense'; `hermes-async task list`" in nonsense.err
    said = cli("task", command, "t00-00000000000000000000000000")
    assert said.code == 2
    assert "no task t00-" in said.err


@pytest.mark.parametrize("command", ["status", "result", "events", "watch", "trace", "cancel"])
def test_the_beginning_of_an_id_will_do(online: Path, cli: Cli, command: str) -> None:
    task_id = create(cli, "parent_agent", "slow", "--input", "0", "--async")
    create(cli, "parent_agent", "slow", "--input", "0", "--async")
    work(task_id)
    whole = cli("task", command, task_id, "--json")  # a person is told how long ago that was
    assert (whole.code, task_id in whole.out or command == "result") == (0, True)
    assert cli("task", command, task_id[:12], "--json") == whole
    assert cli("task", command, task_id[4:12], "--json") == whole


def test_a_beginning_that_fits_several_tasks_fits_none(online: Path, cli: Cli) -> None:
    made = [create(cli, "parent_agent", "research", "--session", "one") for _ in range(4)]
    said = cli("task", "cancel", made[0][:4])
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"4 tasks begin with {made[0][:4]}: " in said.err
    assert sum(task_id in said.err for task_id in made) == 3
    assert said.err.endswith(", …; say more of the id\n")


def test_no_beginning_at_all_means_no_task(online: Path, cli: Cli) -> None:
    create(cli, "parent_agent", "research")
    said = cli("task", "cancel", "")
    assert (said.code, said.out) == (2, "")


def test_beginnings_are_looked_for_among_the_newest(
    online: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "KNOWN", 1)
    old, new = (create(cli, "parent_agent", "research") for _ in range(2))
    assert cli("task", "status", new[:12]).code == 0
    said = cli("task", "status", old[:12])
    assert f"no task begins with '{old[:12]}' among the newest 1;" in said.err
    assert cli("task", "status", old).code == 0


def test_without_a_relay_watch_says_so_soon(online: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relayed, "FIRST_ANSWER", 0.3)
    task_id = create(cli, "parent_agent", "research")
    said = cli("task", "watch", task_id, "--follow", "--relay", "http://127.0.0.1:1")
    assert said.code == 69
    assert "no relay answers at http://127.0.0.1:1" in said.err


def test_watch_over_a_relay_to_the_end(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "slow", "--input", "0", "--async")
    relay = subprocess.Popen([*HERMES, "relay", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert relay.stdout
        url = relay.stdout.readline().removeprefix("relay on ").strip()
        with worker():
            said = cli("task", "watch", task_id, "--follow", "--relay", url)
        lines = said.out.splitlines()
        assert (said.code, said.err) == (0, "")
        assert lines[0] == "#1 task.queued slow for parent_agent"
        assert "task.completed" in lines[-1]
        after_the_end = cli("task", "watch", task_id, "--follow", "--after", str(len(lines)), "--relay", url)
        assert (after_the_end.code, after_the_end.out) == (0, "")
        only = cli("task", "watch", task_id[:12], "--follow", "--result-only", "--relay", url)
        assert only.out.strip().isdigit()
        stranger = cli("token", "--session", "another").out.strip()
        refused = cli("task", "watch", task_id, "--follow", "--relay", url, "--token", stranger)
        assert refused.code == 2
    finally:
        relay.terminate()
        relay.communicate()
    assert relay.returncode == 0


def test_ctrl_c_asks_the_task_to_stop(online: Path) -> None:
    line = [*HERMES, "invoke", "subagent", "slow", "--parent", "parent_agent", "--input", "60"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    async def tasks(hermes: Hermes) -> Any:
        return await hermes.tasks()

    (task,) = wait_until(lambda: asyncio.run(with_hermes(tasks)))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # impatient, or forwarded by a wrapper
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.endswith(f"asked task {task.id} to stop\n")
    assert asyncio.run(with_hermes(tasks))[0].status == "cancelled"


def test_trace_draws_what_the_log_knows(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "research", "--input", "0")
    work(task_id)
    said = cli("task", "trace", task_id)
    rows = [line.split("\t") for line in said.out.splitlines()]
    assert [row[0] for row in rows] == ["task research_agent", "  wait", "  attempt 1 of research_agent"]
    assert rows[0][3] == "completed"
    assert said.code == 0
    told = json.loads(cli("task", "trace", task_id, "--json").out)
    assert (told["task_id"], told["source"], told["status"]) == (task_id, "log", "completed")
    assert len(told["trace_id"]) == 32
    assert told["rows"][2]["attempt"] == 1
    assert cli("task", "trace", "t00-1").code == 2


def test_trace_draws_the_spans_that_were_kept(online: Path, cli: Cli) -> None:
    task_id = create(cli, "parent_agent", "research", "--input", "0")
    trace_id = json.loads(cli("task", "status", task_id, "--json").out)["trace_id"]
    span = Span(trace_id=trace_id, span_id="a" * 16, name="send research_agent", start=1.0, end=3.0)
    TraceFiles(Settings.read().traces_dir).add([span])
    assert cli("task", "trace", task_id).out == "send research_agent\t0.000\t2.000\t\n"
    assert cli("task", "trace", task_id, "--log").out.startswith("task research_agent\t")


BUDGETED = """\
agents:
  boss:
    type: conversational
    subagents:
      - id: spender
        limits: {requests: 2, cost_usd: 0.05}
  spender:
    run: "tests.support.spenders:spender"
"""


def test_status_tells_what_a_task_has_used(online: Path, cli: Cli) -> None:
    (online / "agents.yaml").write_text(BUDGETED)
    given = json.dumps({"book": str(online / "book"), "seconds": 0.0})
    task_id = create(cli, "boss", "spender", "--input", given)
    assert cli("task", "status", task_id).out.count("budget\t0 of 2 requests, 0 of 0.05 US dollars\n") == 1
    work(task_id)
    said = cli("task", "status", task_id)
    assert said.code == 1
    assert "reason\tbudget_exceeded\n" in said.out
    assert (
        "usage\t2 requests, 0 tool calls, 200 tokens read and 20 written, $0.0200\n"
        "budget\t2 of 2 requests, 0.02 of 0.05 US dollars\n"
    ) in said.out
    shown = json.loads(cli("task", "result", task_id, "--json").out)
    assert shown["usage"] == shown["tree_usage"]
    assert (shown["usage"]["requests"], shown["usage"]["cost_usd"]) == (2, 0.02)
    assert cli("agents", "check").code == 0
    (online / "agents.yaml").write_text(BUDGETED.replace("0.05", "-1"))
    refused = cli("agents", "check")
    assert refused.code != 0
    assert "limits.cost_usd must be an amount of US dollars greater than 0" in refused.err


# -- a record that cannot be read ------------------------------------------------------------------------
def test_a_record_that_cannot_be_read_is_told_in_a_sentence(online: Path, cli: Cli) -> None:
    bad, good = [create(cli, "parent_agent", "research", "--input", "0", "--async") for _ in range(2)]
    asyncio.run(with_hermes(lambda hermes: damage(hermes.store, bad, DAMAGES["cut off"])))
    for command in ("status", "result", "events"):
        said = cli("task", command, bad)
        assert (said.code, said.out) == (70, "")
        assert said.err.startswith(
            "hermes-async: this version of hermes_async cannot read the record of task"
        )
        assert said.err.count("\n") == 1
    listed = cli("task", "list", "--json")
    assert (listed.code, [task["id"] for task in json.loads(listed.out)]) == (0, [good])
    assert cli("task", "cancel", bad).out == f"task {bad} is cancelled\n"
    assert cli("task", "cancel", bad).out == f"task {bad} had ended already: cancelled\n"
