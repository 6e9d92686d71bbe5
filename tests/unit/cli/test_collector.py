"""What `up --trace` keeps and draws."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import proxy_bypass

import click
import pytest

from hermes_async.cli import collector as place
from hermes_async.cli.collector import QUIET, Collector
from hermes_async.cli.supervisor import ChildSpec
from hermes_async.domain.errors import UserError
from hermes_async.domain.spans import DEPTH, STATUS, TASK_ID, Span

TRACE = "a" * 32


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def collector(tmp_path: Path, said: list[str]) -> Iterator[Collector]:
    found = Collector(tmp_path, said.append)
    yield found
    found._listener.close()


def span(name: str, id_: str, parent: str | None = None, **attributes: Any) -> Span:
    return Span(
        trace_id=TRACE, span_id=id_, parent_id=parent, name=name, start=1.0, end=2.0, attributes=attributes
    )


def test_an_ended_task_is_drawn_once_nothing_more_comes_of_its_trace(
    collector: Collector, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(place.time, "monotonic", lambda: now[0])
    collector.take([span("process x", "2", "1", **{TASK_ID: "t1", STATUS: "completed", DEPTH: 0})])
    collector.draw_quiet(now[0] + QUIET - 0.1)
    assert said == []
    now[0] += 1
    collector.take([span("send x", "1", **{TASK_ID: "t1"})])
    collector.draw_quiet(100 + QUIET)
    assert said == []
    collector.draw_quiet(101 + QUIET)
    collector.draw_quiet(200)
    plain = [click.unstyle(line) for line in said]
    assert plain[0] == f"task t1 completed, trace {TRACE}"
    assert [line.split()[0] for line in plain[1:]] == ["send", "process"]


def test_child_tasks_are_drawn_with_their_roots_only(collector: Collector, said: list[str]) -> None:
    collector.take([span("process x", "2", **{TASK_ID: "t1", STATUS: "completed", DEPTH: 1})])
    collector.draw_quiet(1e12)
    assert said == []


def test_what_spans_say_cannot_play_tricks_on_a_terminal(collector: Collector, said: list[str]) -> None:
    collector.take([span("x", "2", **{TASK_ID: "t1\x1b]0;x\x07\ny", STATUS: "done\x1b[2J", DEPTH: 0})])
    collector.draw_quiet(1e12)
    plain = [click.unstyle(line) for line in said]
    assert len(plain) == 2
    assert not any(character in "".join(plain) for character in "\x1b\x07\n")


def test_what_cannot_be_kept_is_told_once_and_drawn(
    collector: Collector, said: list[str], tmp_path: Path
) -> None:
    tmp_path.rmdir()
    tmp_path.write_text("no folder")
    for number in (1, 2):
        collector.take([span("x", "2", **{TASK_ID: f"t{number}", STATUS: "completed", DEPTH: 0})])
    collector.draw_quiet(1e12)
    assert [line.split(":")[0] for line in said if "cannot be kept" in line] == ["spans cannot be kept"]
    assert sum("completed" in line for line in said) == 2


def test_long_attributes_are_on_disk_only(collector: Collector) -> None:
    collector.take([span("x", "1", prompt="y" * 2_000, **{TASK_ID: "t1"})])
    [[kept]] = collector._spans.values()
    assert kept.attributes == {TASK_ID: "t1"}
    assert collector._files.read(TRACE)[0].attributes["prompt"] == "y" * 2_000


def test_memory_is_bounded(collector: Collector) -> None:
    for number in range(place.KEPT + 50):
        collector.take([span("x", "1").model_copy(update={"trace_id": f"{number:032x}"})])
    assert len(collector._spans) == len(collector._moved) == place.KEPT


def test_children_send_their_spans_here_whatever_else_is_said(collector: Collector) -> None:
    spec = collector.traced(ChildSpec("async", ["x"], env={"A": "1"}))
    assert spec.env["A"] == "1"
    assert spec.env["OTEL_EXPORTER_OTLP_ENDPOINT"] == collector.address
    assert spec.env["OTEL_SERVICE_NAME"] == "async"


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_spans_do_not_go_by_a_proxy(collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    assert collector.traced(ChildSpec("async", ["x"])).env["no_proxy"] == "127.0.0.1"
    monkeypatch.setenv(name, "internal.example")
    for key, value in collector.traced(ChildSpec("async", ["x"])).env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    hosts = ("127.0.0.1", "internal.example", "example.com")
    assert [bool(proxy_bypass(host)) for host in hosts] == [True, True, False]


def test_without_opentelemetry_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        if name.startswith("hermes_async.adapters.otel"):
            raise ModuleNotFoundError("No module named 'opentelemetry'")
        return importlib.import_module(name)

    monkeypatch.setattr(place, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'hermes_async\[otel\]'"):
        Collector(tmp_path, print)
