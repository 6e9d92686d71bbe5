"""What is written down for Prometheus, read with a parser that is not ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hermes_async.core.hermes import Hermes
from hermes_async.core.ledger import Backlog
from hermes_async.core.metrics import EDGES, Histogram, Metrics, count, count_spent, metrics
from hermes_async.core.ports import Traffic
from hermes_async.domain.usage import Usage
from hermes_async.relay.auth import mint
from hermes_async.relay.http.exposition import histogram, metric
from hermes_async.relay.http.metrics import page
from tests.support.servers import wait_until_async
from tests.support.values import DATA, make_event, make_task
from tests.unit.relay.conftest import SECRET, Station, say, token

COUNTS = {"sockets": 3, "evictions_total": 1}


def parsed(lines: Iterable[str]) -> dict[str, Any]:
    text = "".join(f"{line}\n" for line in lines)
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(family: Any) -> dict[tuple[str, ...], float]:
    return {(each.name, *each.labels.values()): each.value for each in family.samples}


def counted() -> Metrics:
    """Every event once, and two ends of attempts."""
    counts: Counter[str] = Counter()
    for type_ in DATA:
        event = make_event(make_task(), type_)
        count(counts, event.model_copy(update={"id": "t07-x:webhook:3:failed"}))
    for took in (0.3, 400.0):
        count(counts, make_event(make_task(agent="other"), "task.completed"), took)
    count(counts, make_event(make_task(agent="other"), "task.started"), 0.004)
    count_spent(counts, "other", "openai:gpt 4o/mini", Usage(requests=1, input_tokens=20, cost_usd=0.25))
    count_spent(counts, "other", "", Usage(tool_calls=2, output_tokens=3))
    return metrics(counts, open={"queued": 2, "running": 1, "input_required": 0}, oldest=1.5)


@pytest.fixture
def families() -> dict[str, Any]:
    traffic = Traffic({"async": 4, "process": 0}, {"async": 100, "process": 2}, 7, "w1", {"lost": 2})
    return parsed(page(counted(), traffic, Backlog(1, 2, 0.25, 1), COUNTS).splitlines())


def test_every_family_has_a_type_help_and_a_name_as_is_the_custom(families: dict[str, Any]) -> None:
    for name, family in families.items():
        assert family.documentation
        kind = "gauge"
        if any(sample.name.endswith("_total") for sample in family.samples):
            kind = "counter"
        elif any(sample.name.endswith("_bucket") for sample in family.samples):
            kind = "histogram"
        assert family.type == kind, name
        assert name.startswith(("hermes_", "process_"))
    assert len(families) > 20


def test_tasks_are_told_by_agent_status_and_reason(families: dict[str, Any]) -> None:
    assert samples(families["hermes_tasks"]) == {
        ("hermes_tasks_total", "echo", "cancelled"): 1,
        ("hermes_tasks_total", "echo", "completed"): 1,
        ("hermes_tasks_total", "echo", "failed", "timeout"): 0,
        ("hermes_tasks_total", "other", "completed"): 2,
        ("hermes_tasks_total", "echo", "failed", "error"): 1,
        ("hermes_tasks_total", "echo", "rejected", "limit_exceeded"): 1,
    }
    assert samples(families["hermes_retries"]) == {
        ("hermes_retries_total", "echo", "error"): 0,
        ("hermes_retries_total", "echo", "timeout"): 1,
    }
    assert samples(families["hermes_attempts_lost"]) == {
        ("hermes_attempts_lost_total", "echo", "shutdown"): 0,
        ("hermes_attempts_lost_total", "echo", "worker_lost"): 1,
    }
    assert samples(families["hermes_callbacks"]) == {
        ("hermes_callbacks_total", "webhook", outcome): 1 for outcome in ("succeeded", "failed", "dead")
    }
    assert sum(samples(families["hermes_events"]).values()) == len(DATA) + 3


def test_histograms_are_cumulative_and_end_with_all(families: dict[str, Any]) -> None:
    family = families["hermes_attempt_seconds"]
    buckets = [each for each in family.samples if each.name.endswith("_bucket")]
    assert [float(each.labels["le"]) for each in buckets] == [*(edge / 1000 for edge in EDGES), float("inf")]
    assert [each.value for each in buckets] == sorted(each.value for each in buckets)
    found = {each.labels["le"]: each.value for each in buckets}
    assert (found["0.25"], found["0.5"], found["300"], found["600"], found["+Inf"]) == (0, 1, 1, 2, 2)
    rest = {each.name: each.value for each in family.samples if not each.name.endswith("_bucket")}
    assert rest == {"hermes_attempt_seconds_sum": 400.3, "hermes_attempt_seconds_count": 2}


def test_what_was_spent_is_told_by_agent_and_model(families: dict[str, Any]) -> None:
    model = ("other", "openai:gpt 4o/mini")
    assert samples(families["hermes_requests"]) == {("hermes_requests_total", *model): 1}
    assert samples(families["hermes_tool_calls"]) == {("hermes_tool_calls_total", "other"): 2}
    assert samples(families["hermes_tokens"]) == {
        ("hermes_tokens_total", *model, "input"): 20,
        ("hermes_tokens_total", "other", "output"): 3,
    }
    assert samples(families["hermes_cost_usd"]) == {("hermes_cost_usd_total", *model): 0.25}


def test_gauges_are_what_they_were(families: dict[str, Any]) -> None:
    shown = {name: value for family in families.values() for name, value in samples(family).items()}
    for name, value in (
        (("hermes_tasks_open", "queued"), 2),
        (("hermes_oldest_waiting_seconds",), 1.5),
        (("hermes_tasks_admitted", "async"), 4),
        (("hermes_slots", "process"), 2),
        (("hermes_tasks_waiting",), 7),
        (("hermes_swept_total", "lost"), 2),
        (("hermes_janitor_up",), 1),
        (("hermes_callbacks_waiting",), 1),
        (("hermes_callbacks_dead",), 2),
        (("hermes_callbacks_oldest_seconds",), 0.25),
        (("hermes_relay_sockets",), 3),
        (("hermes_relay_evictions_total",), 1),
    ):
        assert shown[name] == value


def test_no_label_names_a_session_or_a_task(families: dict[str, Any]) -> None:
    labels = {label for family in families.values() for each in family.samples for label in each.labels}
    assert labels == {"agent", "status", "reason", "cause", "kind", "outcome", "type", "le", "lane"} | {
        "model",
        "direction",
    }


@pytest.mark.parametrize(
    "text", ['a "quoted" one', "back\\slash", "two\nlines", "ends with \\", "ü❄", "{a=b},"]
)
def test_whatever_a_label_says_is_read_back(text: str) -> None:
    families = parsed([*metric("one", "told", [({"agent": text}, 1)])])
    assert samples(families["one"]) == {("one", text): 1}
    families = parsed(histogram("two", "told", [({"agent": text}, Histogram())]))
    assert {each.labels["agent"] for each in families["two"].samples} == {text}


@pytest.mark.parametrize("value", [0, 1, 0.1, 1e-9, 2**53, 1.5e300, -3])
def test_numbers_are_read_back_as_they_were(value: float) -> None:
    assert samples(parsed(metric("one", "told", [({}, value)]))["one"]) == {("one",): value}


# -- how far behind who listens is -------------------------------------------------------------------
async def figures(http: aiohttp.ClientSession, relay: Station) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {mint(SECRET, sub='ops', sessions='*', ttl=60)}"}
    async with http.get(f"{relay.url}/metrics", headers=headers) as answer:
        families = text_string_to_metric_families(await answer.text())
    return {each.name: each.value for family in families for each in family.samples if not each.labels}


@pytest.mark.anyio
async def test_the_lag_is_that_of_the_slowest_socket(
    hermes: Hermes, relay: Station, http: aiohttp.ClientSession
) -> None:
    async with relay.socket(token("s")) as slow, relay.socket(token("s")) as quick:
        slow.hold.clear()
        for socket in (slow, quick):
            await socket.ask("subscribe", {"session": "s"})
        await say(hermes, "s", 1)
        await wait_until_async(lambda: slow.events and quick.events)
        await say(hermes, "s", 30, start=2)
        await wait_until_async(lambda: len(quick.events) == 31)
        found = await figures(http, relay)
        assert found["hermes_relay_lag_events"] == 30
        assert 0 < found["hermes_relay_ack_wait_seconds"] < 10
        slow.hold.set()
        await wait_until_async(lambda: len(slow.events) == 31)
        await wait_until_async(partial(is_level, http, relay))
    assert (await figures(http, relay))["hermes_relay_sockets"] == 0


async def is_level(http: aiohttp.ClientSession, relay: Station) -> bool:
    found = await figures(http, relay)
    return found["hermes_relay_lag_events"] == found["hermes_relay_ack_wait_seconds"] == 0


@pytest.mark.anyio
async def test_who_has_gone_is_behind_nobody(
    hermes: Hermes, relay: Station, http: aiohttp.ClientSession
) -> None:
    headers = {"Authorization": f"Bearer {token('s')}", "Accept": "text/event-stream"}
    await say(hermes, "s", 3)
    async with http.get(f"{relay.url}/v1/sessions/s/events", headers=headers) as stream:
        await stream.content.readuntil(b"id: 3")
        await wait_until_async(partial(is_level, http, relay))
        assert (await figures(http, relay))["hermes_relay_requests_lasting"] == 1
    await say(hermes, "s", 5, start=4)
    await wait_until_async(partial(is_level, http, relay))
