"""The tree of a trace, also of one that a crash or a stranger has damaged."""

from __future__ import annotations

from typing import Any

from hermes_async.domain.spans import ATTEMPT, TASK_ID, Part, Span, span_id, stretches


def span(id_: str, parent: str | None = None, start: float = 0.0, **more: Any) -> Span:
    end = more.pop("end", start + 1)
    return Span(trace_id="t", span_id=id_, parent_id=parent, name=id_, start=start, end=end, **more)


def of(task_id: str, attempt: int = 1) -> dict[str, Any]:
    return {"attributes": {TASK_ID: task_id, ATTEMPT: attempt}}


def tree(spans: list[Span], task_id: str | None = None) -> list[str]:
    return ["  " * row.depth + row.name for row in stretches(spans, task_id)]


def test_spans_become_a_tree_in_the_order_of_time_however_they_came() -> None:
    spans = [span("c", "a", 3), span("b", "a", 2), span("d", "b", 2.5), span("a", None, 1), span("b", "a", 2)]
    assert tree(spans) == ["a", "  b", "    d", "  c"]


def test_what_a_killed_process_took_along_is_replaced_by_the_agent_that_was_at_work() -> None:
    agent = span_id("t1", 1, Part.AGENT)
    spans = [
        span(agent, None, 0, **of("t1")),
        span("step", "lost with the process", 1, **of("t1")),
        span("other attempt", "lost with the process", 2, **of("t1", 2)),
    ]
    assert tree(spans) == [agent, "  step", "other attempt"]  # of whose agent nothing has come yet


def test_one_task_of_a_trace_is_its_dispatch_and_what_is_below() -> None:
    spans = [
        span("turn"),
        span("send", "turn", 1, **of("t1")),
        span("process", "send", 2, **of("t1")),
        span("child", "process", 3, **of("t2")),
        span("other", "turn", 1, **of("t3")),
    ]
    assert tree(spans, "t1") == ["send", "  process", "    child"]
    assert tree(spans, "t2") == ["child"]
    assert tree(spans, "unknown") == tree(spans)


def test_a_ring_of_parents_is_passed_over() -> None:
    assert tree([span("a", "b"), span("b", "a"), span("c")]) == ["c"]
    assert tree([span("a", "b", **of("t1")), span("b", "a")], "t1") == ["a", "  b"]


def test_an_attempt_is_not_below_its_agent_because_its_dispatch_is_told_elsewhere() -> None:
    agent, process, wait = (span_id("t1", 1, part) for part in (Part.AGENT, Part.PROCESS, Part.WAIT))
    spans = [
        span(wait, "told elsewhere", 0, **of("t1")),
        span(process, "told elsewhere", 1, **of("t1")),
        span(agent, process, 1, **of("t1")),
    ]
    assert tree(spans, "t1") == tree(spans) == [wait, f"{process} #1", f"  {agent}"]


def test_a_huge_trace_is_cut() -> None:
    spans = [span(str(number), None, number) for number in range(5_000)]
    assert len(tree(spans)) == 2_000


def test_a_deep_trace_is_drawn() -> None:
    spans = [span(str(n), str(n - 1) if n else None, n) for n in range(1_900)]
    assert stretches(spans)[-1].depth == 1_899
