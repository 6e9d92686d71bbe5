"""The law of a task's life, as a table and under whatever chance comes up with."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_async.domain.agent import RetryPolicy, SubagentSpec
from hermes_async.domain.events import CLASSES, AnyEvent, AttemptLostData
from hermes_async.domain.failure import ErrorInfo, Reason
from hermes_async.domain.lifecycle import (
    COPIED,
    FIXED,
    LEGAL,
    LONGEST_DELAY,
    MAX_LOSSES,
    STAMP,
    SUSPECT_LOSSES,
    TARGET,
    TERMINAL_TYPES,
    UNFENCED,
    IllegalTransition,
    Interrupted,
    Lost,
    Outcome,
    Overdue,
    Raised,
    Returned,
    allowed_from,
    apply,
    decide,
)
from hermes_async.domain.task import TERMINAL, Address, Lane, Task, TaskStatus
from hermes_async.domain.usage import Usage
from tests.support.values import DATA, make_event, make_task

S = TaskStatus
ERROR = ErrorInfo(type="ValueError", message="no")


def task_in(status: TaskStatus, **state: Any) -> Task:
    options = state.pop("options", None)
    return make_task(options=options, status=status, attempt=state.pop("attempt", 1), **state)


# -- the table -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", S)
@pytest.mark.parametrize("type_", sorted(CLASSES))
def test_an_event_is_taken_or_refused_as_the_table_says(status: TaskStatus, type_: str) -> None:
    task = task_in(status)
    if type_ in LEGAL[status]:
        assert apply(task, make_event(task, type_)).status is TARGET.get(type_, status)
    else:
        with pytest.raises(IllegalTransition, match=f"{type_} cannot follow status `{status}`"):
            apply(task, make_event(task, type_))


def test_what_may_happen_where() -> None:
    """The table once more, by event: a change of the law must be meant."""
    table = {type_: "".join(status[0] for status in allowed_from(type_)) for type_ in CLASSES}
    assert table == {
        "task.queued": "",
        "task.started": "q",
        "task.progress": "ri",
        "task.partial": "ri",
        "task.message": "qri",
        "task.input_required": "r",
        "task.message_applied": "ri",
        "task.resumed": "i",
        "task.answered": "qr",
        "task.cancel_requested": "qri",
        "task.retrying": "ri",
        "task.attempt_lost": "ri",
        "task.completed": "ri",
        "task.failed": "qri",
        "task.cancelled": "qri",
        "task.rejected": "q",
        "session.message": "ri",
        "session.restored": "",
        "session.unreadable": "",
        "callback.succeeded": "",
        "callback.failed": "",
        "callback.dead": "",
    }


def test_the_tables_speak_of_events_and_fields_that_exist() -> None:
    assert set(LEGAL) == set(S)
    for table in (TARGET, STAMP, COPIED, FIXED):
        assert table.keys() <= CLASSES.keys()
    assert CLASSES.keys() >= UNFENCED
    fields = Task.model_fields.keys()
    assert set(STAMP.values()) <= fields
    assert all(set(names) <= fields for names in (*COPIED.values(), *FIXED.values()))
    for type_, names in COPIED.items():
        assert set(names) <= type(DATA[type_]).model_fields.keys()


def test_only_final_events_lead_to_final_statuses_and_stamp_the_end() -> None:
    assert {type_ for type_, status in TARGET.items() if status in TERMINAL} == TERMINAL_TYPES
    assert {type_ for type_, field in STAMP.items() if field == "finished_at"} == TERMINAL_TYPES
    assert all(LEGAL[status] == frozenset() for status in TERMINAL)
    assert all(LEGAL[status] & TERMINAL_TYPES for status in set(S) - TERMINAL)


def test_every_status_can_be_reached() -> None:
    reached = {S.QUEUED}
    for _ in S:
        reached |= {TARGET[t] for status in reached for t in LEGAL[status] if t in TARGET}
    assert reached == set(S)


# -- what events change ----------------------------------------------------------------------------------
def test_a_start_counts_the_attempt_and_forgets_the_progress() -> None:
    task = task_in(S.QUEUED, attempt=1, progress=DATA["task.progress"])
    event = make_event(task.model_copy(update={"attempt": 2}), "task.started")
    started = apply(task, event.model_copy(update={"time": 5.0}))
    assert (started.status, started.attempt, started.worker) == (S.RUNNING, 2, "w1")
    assert (started.progress, started.started_at) == (None, 5.0)


def test_completion_clears_what_the_failure_before_left() -> None:
    task = task_in(S.RUNNING, error=ERROR, reason=Reason.ERROR)
    done = apply(task, make_event(task, "task.completed").model_copy(update={"time": 7.0}))
    assert (done.output, done.error, done.reason, done.finished_at) == ({"ü": [1, "two"]}, None, None, 7.0)


def test_partials_are_kept_by_name() -> None:
    task = task_in(S.RUNNING, partials={"other": 1, "summary": 2})
    value = DATA["task.partial"].value
    assert apply(task, make_event(task, "task.partial")).partials == {"other": 1, "summary": value}
    assert task.partials == {"other": 1, "summary": 2}


def test_failures_and_losses_are_counted() -> None:
    task = task_in(S.RUNNING)
    retrying = apply(task, make_event(task, "task.retrying"))
    assert (retrying.failures, retrying.reason, retrying.status) == (1, Reason.TIMEOUT, S.QUEUED)
    assert apply(task, make_event(task, "task.attempt_lost")).losses == 1


def test_a_cancel_request_is_a_flag() -> None:
    task = task_in(S.RUNNING)
    asked = apply(task, make_event(task, "task.cancel_requested"))
    assert asked == task.model_copy(update={"cancel_requested": True})


@given(types=st.lists(st.sampled_from(sorted(CLASSES)), max_size=30))
def test_no_sequence_of_events_leaves_the_law(types: list[str]) -> None:
    task = make_task()
    for type_ in types:
        was = task.model_dump_json()
        seen = task
        try:
            task = apply(task, make_event(task, type_))
        except IllegalTransition:
            assert type_ not in LEGAL[seen.status]
            continue
        assert not seen.status.is_terminal
        assert seen.model_dump_json() == was
        assert task.birth is seen.birth
        assert (task.finished_at is not None) == task.status.is_terminal


# -- decide ----------------------------------------------------------------------------------------------
_seconds = st.floats(0.001, 31_536_000)
_policies = st.builds(
    RetryPolicy,
    initial=_seconds,
    factor=st.floats(1, 1000),
    maximum=_seconds,
    jitter=st.booleans(),
    non_retryable=st.sampled_from([(), ("ValueError",), ("KeyError",)]),
)
_options = st.builds(
    SubagentSpec,
    id=st.just("echo"),
    agent=st.just("echo"),
    retry_limit=st.one_of(st.none(), st.integers(0, 1000)),
    retry_on_failure=st.sampled_from([None, True, False]),
    retry=_policies,
)
_raised = st.builds(
    Raised,
    error=st.just(ERROR),
    reason=st.sampled_from(Reason),
    kinds=st.sampled_from([(), ("ValueError", "builtins.ValueError", "Exception")]),
    retry_after=st.one_of(st.none(), st.floats()),
)
_returned = st.builds(Returned, st.one_of(st.none(), st.integers(), st.text()))
_outcomes = st.one_of(_returned, _raised, st.just(Interrupted()), st.just(Lost()))


@st.composite
def _running(draw: st.DrawFn) -> Task:
    task = task_in(
        S.RUNNING,
        attempt=draw(st.integers(1, 2000)),
        failures=draw(st.integers(0, 1001)),
        losses=draw(st.integers(0, MAX_LOSSES)),
        cancel_requested=draw(st.booleans()),
    )
    birth = task.birth.model_copy(update={"options": draw(_options)})
    return task.model_copy(update={"birth": birth})


@given(task=_running(), outcome=_outcomes, chance=st.floats(0, 1, exclude_max=True))
def test_every_outcome_gives_one_lawful_event(task: Task, outcome: Outcome, chance: float) -> None:
    event = decide(task, outcome, chance=chance)
    assert event.type in LEGAL[S.RUNNING]
    assert event.type in TARGET
    assert event.attempt == task.attempt
    assert type(event).model_validate_json(event.model_dump_json()) == event
    after = apply(task, event)
    assert after.status is not S.RUNNING
    if event.type == "task.retrying":
        assert 0 <= event.data.delay <= LONGEST_DELAY
        assert after.failures == task.failures + 1 <= task.birth.options.retries


@given(task=_running(), outcome=_outcomes)
def test_who_asked_to_cancel_gets_no_further_attempt(task: Task, outcome: Outcome) -> None:
    asked = task.model_copy(update={"cancel_requested": True})
    expected = "task.completed" if isinstance(outcome, Returned) else "task.cancelled"
    assert decide(asked, outcome).type == expected


@pytest.mark.parametrize(
    ("options", "failures", "expected"),
    [
        ({}, 0, "task.failed"),
        ({"retry_limit": 2}, 0, "task.retrying"),
        ({"retry_limit": 2}, 1, "task.retrying"),
        ({"retry_limit": 2}, 2, "task.failed"),
        ({"retry_on_failure": True}, 1, "task.retrying"),
        ({"retry_on_failure": True}, 2, "task.failed"),
        ({"retry_on_failure": False, "retry_limit": 5}, 0, "task.failed"),
        ({"retry_limit": 5, "retry": RetryPolicy(non_retryable=("my.Fault",))}, 0, "task.failed"),
        ({"retry_limit": 5, "retry": RetryPolicy(non_retryable=("Exception",))}, 0, "task.failed"),
        ({"retry_limit": 5, "retry": RetryPolicy(non_retryable=("KeyError",))}, 0, "task.retrying"),
    ],
)
def test_a_failure_is_retried_as_the_options_say(
    options: dict[str, Any], failures: int, expected: str
) -> None:
    task = task_in(S.RUNNING, options=options, failures=failures)
    outcome = Raised(ERROR, kinds=("Fault", "my.Fault", "Exception"))
    event = decide(task, outcome)
    assert event.type == expected
    assert event.data.error == ERROR
    assert event.data.reason is Reason.ERROR


@pytest.mark.parametrize("losses", range(MAX_LOSSES + 1))
def test_a_task_that_kills_its_workers_is_given_up(losses: int) -> None:
    event = decide(task_in(S.RUNNING, losses=losses), Lost())
    if losses + 1 < MAX_LOSSES:
        alone = Lane.PROCESS if losses + 1 >= SUSPECT_LOSSES else None
        assert event.data == AttemptLostData(cause="worker_lost", losses=losses + 1, moved_to=alone)
        assert apply(task_in(S.RUNNING), event).lane is (alone or Lane.ASYNC)
    else:
        assert (event.type, event.data.reason) == ("task.failed", Reason.WORKER_LOST)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.EXPIRED, "not started within its queue_timeout of 5 s"),
        (Reason.TOTAL_TIMEOUT, "not done within its total_timeout of 60 s"),
    ],
)
def test_a_task_whose_time_is_over_has_failed(reason: Reason, message: str) -> None:
    options = {"queue_timeout": 5.0, "total_timeout": 60.0, "retry_limit": 9, "fallback": "other"}
    event = decide(task_in(S.QUEUED, options=options), Overdue(reason))
    assert (event.type, event.data.reason, event.data.error.message) == ("task.failed", reason, message)


def with_fallback(**state: Any) -> Task:
    options = {"fallback": "other", "retry_limit": 1}
    task = task_in(S.RUNNING, options=options, **state)
    birth = task.birth.model_copy(update={"fallback": Address(lane=Lane.PROCESS, concurrency_limit=3)})
    return task.model_copy(update={"birth": birth})


def test_a_fallback_takes_over_when_the_retries_are_spent() -> None:
    task = with_fallback(failures=1)
    event = decide(task, Raised(ERROR, Reason.TIMEOUT))
    assert (event.type, event.data.agent, event.data.delay) == ("task.retrying", "other", 0.0)
    after = apply(task, event)
    assert (after.agent, after.failures, after.reason) == ("other", 0, Reason.TIMEOUT)
    assert after.address == Address(lane=Lane.PROCESS, concurrency_limit=3)
    retried = decide(after, Raised(ERROR))
    assert (retried.type, retried.data.agent) == ("task.retrying", None)


@pytest.mark.parametrize("outcome", [Raised(ERROR), Lost()])
def test_after_the_fallback_there_is_nobody(outcome: Outcome) -> None:
    task = with_fallback(failures=1, losses=MAX_LOSSES).model_copy(update={"agent": "other"})
    assert decide(task, outcome).type == "task.failed"


def test_a_fallback_takes_over_from_an_agent_that_kills_its_workers() -> None:
    event = decide(with_fallback(losses=MAX_LOSSES - 1), Lost())
    assert (event.type, event.data.agent, event.data.reason) == ("task.retrying", "other", Reason.WORKER_LOST)


@pytest.mark.parametrize("reason", [Reason.TOTAL_TIMEOUT, Reason.BUDGET_EXCEEDED])
def test_no_fallback_helps_when_time_or_money_is_spent(reason: Reason) -> None:
    event = decide(with_fallback(), Raised(ERROR, reason, permanent=True))
    assert (event.type, event.data.reason) == ("task.failed", reason)


@pytest.mark.parametrize("outcome", [Returned(1), Raised(ERROR), Overdue(Reason.TOTAL_TIMEOUT)])
def test_an_end_tells_what_the_task_has_consumed(outcome: Outcome) -> None:
    usage = Usage(requests=2, cost_usd=0.5)
    task = task_in(S.RUNNING, usage=usage, options={"total_timeout": 5.0})
    assert decide(task, outcome).data.usage == usage


def test_a_shutdown_does_not_count_as_a_loss() -> None:
    event = decide(task_in(S.RUNNING, losses=2), Interrupted())
    assert event.data == AttemptLostData(cause="shutdown", losses=2)


def delay_of(retry: dict[str, Any], *, failures: int = 0, chance: float = 1.0, after: Any = None) -> float:
    options = {"retry_limit": 1000, "retry": RetryPolicy(**retry)}
    task = task_in(S.RUNNING, options=options, failures=failures)
    event = decide(task, Raised(ERROR, retry_after=after), chance=chance)
    assert event.type == "task.retrying"
    return float(event.data.delay)


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = {"initial": 2.0, "factor": 3.0, "maximum": 50.0, "jitter": False}
    waits = [delay_of(policy, failures=failures, chance=0.1) for failures in range(5)]
    assert waits == [2.0, 6.0, 18.0, 50.0, 50.0]


def test_jitter_spreads_each_wait_from_zero_to_its_length() -> None:
    policy = {"initial": 8.0, "maximum": 60.0}
    assert [delay_of(policy, chance=chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 2.0, 4.0]


def test_a_wait_beyond_all_numbers_is_the_maximum() -> None:
    assert delay_of({"factor": 1000.0, "maximum": 9.0, "jitter": False}, failures=999) == 9.0


@pytest.mark.parametrize(
    ("asked", "given_"), [(3.5, 3.5), (0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, LONGEST_DELAY)]
)
def test_an_agent_may_say_when_to_come_again(asked: float, given_: float) -> None:
    assert delay_of({"maximum": 1.0}, after=asked) == given_


def test_every_outcome_is_tested() -> None:
    assert set(get_args(Outcome)) == {Returned, Raised, Interrupted, Lost, Overdue}


def test_no_event_type_is_forgotten() -> None:
    assert DATA.keys() == CLASSES.keys()
    example: AnyEvent = make_event(make_task(), "task.started")
    assert isinstance(example, CLASSES["task.started"])
