"""What people see: bars on a terminal, harmless text everywhere, the console of `up`."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from hermes_async.cli import words
from hermes_async.cli.console import Console, is_worker_ready
from hermes_async.cli.views import Bars
from hermes_async.core.ids import new_task_id, new_traceparent
from hermes_async.domain.agent import SubagentSpec
from hermes_async.domain.events import (
    AnyEvent,
    CompletedData,
    FailedData,
    MessageData,
    PartialData,
    StartedData,
    queued,
    task_event,
)
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.task import Birth, Progress, Task

TASK = Task(
    birth=Birth(
        id=new_task_id("s"),
        session_id="s",
        subagent="research",
        options=SubagentSpec(id="research", agent="research_agent"),
        traceparent=new_traceparent(),
    ),
    agent="research_agent",
    attempt=1,
)
BOOM = ErrorInfo(type="ValueError", message="boom")


def event(type_: str, data: Any = None, at: float = 0.0, seq: int = 1) -> AnyEvent:
    return task_event(TASK, type_, data, n=seq).model_copy(update={"time": at, "seq": seq})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, *events: AnyEvent) -> str:
    """What a terminal was sent, without the colours and movements."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Bars(stream) as bars:
        for each in events:
            bars.show(each)
            bars._progress.refresh()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_terminal_shows_bar_partials_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drawn(
        monkeypatch,
        queued(TASK).model_copy(update={"time": 100.0}),
        event("task.started", StartedData(worker="w"), 100.1),
        event("task.progress", Progress(progress_percent=40, message="searching [bold]")),
        event("task.partial", PartialData(name="summary", value="so far")),
        event("task.message", MessageData(text="hello\x1b]0;evil\x07")),
        event("task.completed", CompletedData(output=1), 103.2),
    )
    assert "research_agent" in shown
    assert "40% searching [bold]" in shown
    assert "partial summary: so far" in shown
    assert "message hello\ufffd]0;evil" in shown
    assert "completed after 3.2 s" in shown


def test_a_terminal_shows_why_a_task_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = drawn(monkeypatch, event("task.failed", FailedData(reason=Reason.TIMEOUT, error=BOOM)))
    assert "failed timeout: ValueError: boom" in shown


def test_news_stay_on_one_line_of_bearable_length() -> None:
    told = words.news(event("task.partial", PartialData(name="text", value="a\nb\t" + "x" * 1000)))
    assert told.startswith("text: a b xxx")
    assert len(told) == words.LONGEST
    assert told.endswith("…")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (180, "3 m"), (7300, "2 h"), (4e5, "5 d")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert words.seconds(seconds) == text


RECORD = "[2025-11-22 09:00:00,000: {}/MainProcess] {}"


def console(capsys: pytest.CaptureFixture[str], *lines: str, verbose: bool = False) -> list[str]:
    shown = Console(["relay", "async"], verbose=verbose)
    for line in lines:
        shown.line("async", line)
        if is_worker_ready(line):
            shown.ready("async", line)
    return capsys.readouterr().out.splitlines()


def test_the_console_shows_warnings_and_what_follows_them(capsys: pytest.CaptureFixture[str]) -> None:
    told = console(
        capsys,
        " -------------- async@host v5.7",
        RECORD.format("INFO", "async@host ready."),
        RECORD.format("ERROR", "it failed"),
        "Traceback ...",
        RECORD.format("INFO", "Task received"),
        "of no interest",
    )
    assert told == ["async | it failed", "async | Traceback ..."]


def test_the_console_shows_all_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    line = RECORD.format("INFO", "Task received")
    assert console(capsys, "banner", line, verbose=True) == ["async | banner", f"async | {line}"]


def test_the_last_words_of_a_child_that_was_never_ready_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Console(["relay", "async"], verbose=False)
    shown.line("relay", "hermes-async: the relay cannot listen")
    assert capsys.readouterr().out == ""
    shown.notice("relay", "ended with code 69; starting it again in 0.2 s")
    assert capsys.readouterr().out.splitlines() == [
        "relay | hermes-async: the relay cannot listen",
        "relay | ended with code 69; starting it again in 0.2 s",
    ]
