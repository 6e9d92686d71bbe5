"""What is said over HTTP, in both directions: checked when it comes in, described in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from hermes_async.domain.events import AnyEvent
from hermes_async.domain.task import Birth, Task

Seq = Annotated[int, Field(ge=0, le=2**53)]
#: Fields of a record that nobody is shown: see `Task.as_json`.
_HIDDEN = {"birth", "budgets", "claim", "options", "ordered", "traceparent", "tracestate"}


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class NewTask(_Said):
    """A subagent to invoke."""

    subagent: str = Field(min_length=1, max_length=200, examples=["echo"])
    parent: str | None = Field(
        default=None, max_length=200, description="the agent of agents.yaml whose subagent is meant"
    )
    input: str | dict[str, JsonValue] = Field(
        default="",
        description="the arguments by name, or a text: a JSON object of arguments, or the first argument",
        examples=["hello", {"text": "hello"}],
    )
    priority: int | None = Field(
        default=None, ge=0, le=9, description="9 is first; by default the subagent's"
    )
    idempotency_key: str | None = Field(
        default=None, description="the same key in the same session gives the same task"
    )


class NewMessage(_Said):
    """Something to say in a session."""

    text: str = Field(examples=["good morning"])
    data: JsonValue = None


class NewAnswer(_Said):
    """What a task asked for."""

    value: JsonValue = Field(examples=["eu-west-1"])
    question: str | None = Field(
        default=None, max_length=200, description="the id of the question that is meant; else the open one"
    )


class Cancel(_Said):
    """How a cancel is meant."""

    force: bool = Field(default=False, description="kill what runs it, instead of letting it clean up")
    cascade: bool = Field(default=True, description="stop the tasks below it, too")


class Ack(_Said):
    """Deliveries that the parent has dealt with."""

    seqs: list[Seq] = Field(max_length=1000, examples=[[4, 7]])


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _record() -> type[BaseModel]:
    """Return the model of `Task.as_json`: birth and state side by side."""
    fields: dict[str, Any] = {
        name: (field.annotation, ...)
        for kind in (Birth, Task)
        for name, field in kind.model_fields.items()
        if name not in _HIDDEN
    }
    return create_model("TaskRecord", __base__=_Answer, trace_id=(str, ...), **fields)


TaskRecord = _record()


class Tasks(_Answer):
    """Tasks, newest first."""

    tasks: list[TaskRecord]  # type: ignore[valid-type]


class Snapshot(_Answer):
    """Tasks as they are once every event up to `seq` is applied."""

    seq: int
    tasks: list[TaskRecord]  # type: ignore[valid-type]


class Posted(_Answer):
    """The place of a new event in its session's log."""

    seq: int


class Acked(_Answer):
    """How many of the deliveries lay in the inbox."""

    acked: int


class Deliveries(_Answer):
    """What lies in the inbox, oldest first, and how much that is altogether."""

    deliveries: list[AnyEvent]
    unread: int


class Events(_Answer):
    """What comes next in a log.

    `after` is where to go on. `gap` names the first and last `seq` that are no longer kept; then `snapshot`
    takes their place, and there are no events. `end`: the task is over, and nothing more will come.
    """

    events: list[AnyEvent]
    after: int
    gap: tuple[int, int] | None
    snapshot: Snapshot | None
    end: bool


class Health(_Answer):
    """Whether the relay can serve."""

    status: str
    redis: str | None
    hears: bool
