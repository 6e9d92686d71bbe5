"""`hermes-async metrics`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio
import pytest

from hermes_async.core.hermes import Hermes
from hermes_async.domain.usage import Usage
from tests.support.values import make_event, make_task
from tests.unit.cli.conftest import Cli, with_hermes


async def work(hermes: Hermes) -> None:
    store = hermes.store
    for end in ("completed", "completed", "failed", "cancelled", "retrying", ""):
        task = make_task("chat", agent="research_agent" if end else "slow_agent")
        await store.create(task, None, None)
        if not end:
            continue
        claimed = await store.claim(task.id, "w1", 60)
        assert claimed is not None
        amount = Usage(requests=1, input_tokens=1000, output_tokens=500, cost_usd=0.25)
        await store.spend(claimed, 1, amount, asks=False, model="gpt-4o-mini")
        await store.append(make_event(claimed, f"task.{end}"))
    await store.lead("w1", 60)


@pytest.fixture
def worked(online: Path) -> None:
    anyio.run(with_hermes, work)


def test_nothing_has_happened_yet(online: Path, cli: Cli) -> None:
    said = cli("metrics")
    assert (said.code, said.err) == (0, "")
    assert "open\t0 queued, 0 running, 0 input_required\n" in said.out
    assert json.loads(cli("metrics", "--json").out)["agents"] == {}


def test_a_line_for_each_agent(worked: None, cli: Cli) -> None:
    lines = cli("metrics").out.splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0][1].startswith("2 queued, 0 running, 0 input_required; the oldest not begun for 0.")
    names = [row[0] for row in rows]
    assert names == ["open", "slots", "callbacks", "events", "counted", "research_agent", "slow_agent"]
    assert rows[5][1:7] == ["5", "2", "1", "1", "1", "0"]
    assert re.fullmatch(r"\d+ ms / \d+ ms", rows[5][7]) and re.fullmatch(r"\d+ ms / \d+ ms", rows[5][8])
    assert rows[5][9:] == ["7,500", "$1.2500"]
    assert rows[6][1:] == ["1", "0", "0", "0", "0", "0", "-", "-", "-", "-"]


def test_the_same_in_json(worked: None, cli: Cli) -> None:
    said = json.loads(cli("metrics", "--json").out)
    assert said["open"] == {"queued": 2, "running": 0, "input_required": 0}
    assert 0 <= said["oldest_waiting"] < 60
    assert said["callbacks"] == {"succeeded": 0, "failed": 0, "dead": 0, "waiting": 0, "dead_letters": 0}
    agent = said["agents"]["research_agent"]
    assert (agent["dispatched"], agent["completed"], agent["failed"], agent["cancelled"]) == (5, 2, 1, 1)
    assert (agent["attempts"], agent["retries"], agent["lost"], agent["rejected"]) == (5, 1, 0, 0)
    assert agent["failed_by_reason"] == {"error": 1}
    assert (agent["wait"]["count"], agent["attempt"]["count"]) == (5, 5)
    assert 0 < agent["attempt"]["p50"] <= agent["attempt"]["p95"] <= agent["attempt"]["p99"]
    assert agent["spent"]["gpt-4o-mini"]["cost_usd"] == 1.25
    assert said["agents"]["slow_agent"]["attempt"] == {
        "count": 0,
        "seconds": 0.0,
        "p50": None,
        "p95": None,
        "p99": None,
    }
