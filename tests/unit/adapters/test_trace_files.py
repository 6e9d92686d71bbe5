"""Spans in files: kept, bounded, and unimpressed by hostile ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_async.adapters import trace_files
from hermes_async.adapters.trace_files import TraceFiles
from hermes_async.domain.spans import Span


def span(trace_id: str, span_id: str = "b" * 16) -> Span:
    return Span(trace_id=trace_id, span_id=span_id, name="x", start=1.0, end=2.0, attributes={"a": [1]})


def test_spans_come_back_as_they_were(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path / "traces")
    assert files.read("a" * 32) == []
    files.add([span("a" * 32), span("c" * 32)])
    files.add([span("a" * 32, "d" * 16)])
    assert TraceFiles(tmp_path / "traces").read("a" * 32) == [span("a" * 32), span("a" * 32, "d" * 16)]
    assert oct((tmp_path / "traces").stat().st_mode)[-3:] == "700"


def test_a_trace_id_names_no_other_file(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path / "traces")
    files.add([span("../escaped"), span("A" * 32), span("")])
    assert list(tmp_path.rglob("*")) == []
    (tmp_path / "x.jsonl").write_text("{}")
    assert files.read("../x") == []


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path)
    files.add([span("a" * 32)])
    with (tmp_path / f"{'a' * 32}.jsonl").open("a") as file:
        file.write('{"trace_id": "half')
    assert files.read("a" * 32) == [span("a" * 32)]
    with (tmp_path / f"{'a' * 32}.jsonl").open("ab") as raw:
        raw.write(b'{"name": "half of a letter \xe2')
    assert files.read("a" * 32) == [span("a" * 32)]


def test_whatever_ends_a_line_elsewhere_does_not_end_a_span(tmp_path: Path) -> None:
    odd = span("a" * 32).model_copy(update={"name": "a\u2028b\x85c\x0bd\ne"})
    files = TraceFiles(tmp_path)
    files.add([odd])
    assert files.read("a" * 32) == [odd]


def test_the_oldest_traces_go_and_a_huge_one_stops_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_files, "KEPT", 20)
    monkeypatch.setattr(trace_files, "LARGEST", 1_000)
    files = TraceFiles(tmp_path)
    for number in range(200):
        files.add([span(f"{number:032x}")])
    assert len(list(tmp_path.iterdir())) < 20 + 2 * 50
    for number in (1, 2, 100, 1):
        files.add([span("a" * 32)] * number)
    assert 800 < (tmp_path / f"{'a' * 32}.jsonl").stat().st_size <= 1_000
