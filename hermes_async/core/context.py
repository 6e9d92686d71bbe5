"""What an agent function is given: who it works for, and how it speaks while it works."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel, JsonValue

from hermes_async.core.agent import Subagent
from hermes_async.core.arguments import Patience, Percent, Seconds, Text, strict
from hermes_async.core.company import Company, Delegate
from hermes_async.core.handle import TaskHandle
from hermes_async.core.shape import Shape
from hermes_async.core.signature import EVENT_BYTES, as_json
from hermes_async.domain.agent import RunLimits, SubagentSpec
from hermes_async.domain.errors import UserError
from hermes_async.domain.events import MessageData, PartialData
from hermes_async.domain.model_settings import ModelSettings
from hermes_async.domain.question import Answer
from hermes_async.domain.task import Progress, Task
from hermes_async.domain.usage import Usage, checked_model, checked_usage

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: None may be a default.
NO_DEFAULT: Any = object()

#: Keep the messages of a process apart until they are written.
_ordinals = itertools.count(1)

#: Characters of a progress message; the rest is cut.
STATUS_LENGTH = 500


class Voice(Protocol):
    """Where an agent's news go; it must take them from any thread without blocking."""

    def tell(self, key: str, type_: str, data: BaseModel | Callable[[], BaseModel]) -> None:
        """Note a piece of news; an unwritten one of the same key is replaced."""
        ...


class TaskContext:
    """The first argument of every agent.

    What tells works in `def` and in `async def` alike; what is awaited goes through `wait` in a `def`.
    """

    def __init__(self, task: Task, voice: Voice, company: Callable[[], Company]) -> None:
        #: True once somebody asked to cancel, or the attempt was given to another worker.
        self.cancelled = False
        self._task = task
        self._voice = voice
        self._find_company = company
        self._loop = asyncio.get_running_loop()

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return self._task.id

    @property
    def session_id(self) -> str:
        """The session to which its events go."""
        return self._task.session_id

    @property
    def parent(self) -> str | None:
        """The agent on whose behalf it works."""
        return self._task.birth.parent

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._task.attempt

    @property
    def depth(self) -> int:
        """How many tasks are above it."""
        return self._task.birth.depth

    @property
    def trace_id(self) -> str:
        """The 32 hex digits that name the whole trace."""
        return self._task.birth.trace_id

    @property
    def model(self) -> str | None:
        """What the parent says instead of the agent's own model; a fallback has its own."""
        return self._for_the_model.model

    @property
    def model_settings(self) -> ModelSettings:
        """How the parent says that the model is to answer; a fallback has settings of its own."""
        return self._for_the_model.settings

    @property
    def _for_the_model(self) -> SubagentSpec:
        options = self._task.birth.options
        return options.without_model() if self._task.agent == options.fallback else options

    @property
    def limits(self) -> RunLimits:
        """What the task may spend, together with those below it."""
        return self._task.birth.options.limits

    @property
    def bounds(self) -> tuple[RunLimits, ...]:
        """All limits that bind it: those of the tasks above it, the uppermost first, and its own."""
        return tuple(budget.limits for budget in self._task.birth.budgets)

    @cached_property
    def _company(self) -> Company:
        return self._find_company()

    @property
    def children(self) -> Delegate:
        """What `Delegation` takes, so that a model that works on this task can delegate parts of it.

        `await ctx.children.news()` waits, without a slot, until a task that its tools have started has ended
        or asks something; it returns these events, or nothing when there is no more to come.
        """
        return self._company.delegate

    @strict
    def progress(self, percent: Percent = None, message: str = "") -> None:
        """Say how far the work is; may be called often, only the latest of each quarter second is sent.

        Args:
            percent: from 0 to 100, clamped; None when unknown.
            message: what is being done right now.
        """
        clamped = None if percent is None else min(100.0, max(0.0, float(percent)))
        self._voice.tell(
            "progress", "task.progress", Progress(progress_percent=clamped, message=_line(message))
        )

    @property
    def progress_callback(self) -> Callable[[float, str], None]:
        """A plain `f(percent, message)` to hand to a library."""
        return self.progress

    @strict
    def partial(self, value: JsonValue | Callable[[], JsonValue], name: Text = "output") -> None:
        """Show a part of the result before the end; a later one of the same name replaces it.

        Args:
            value: what is shown; or what returns it, for a text that grows fast: it is called on the event
                loop at each write, four times a second at most, and what it raises is logged.
            name: of the part.

        Raises:
            InvalidInput: it has no JSON form, or is larger than an event may be.
        """

        def said() -> PartialData:
            now = value() if callable(value) else value
            shown = as_json(now, f"the partial result {name!r}", limit=EVENT_BYTES)
            return PartialData(name=name, value=shown)

        self._voice.tell(f"partial {name}", "task.partial", said if callable(value) else said())

    @strict
    def message(self, text: Text, data: JsonValue = None) -> None:
        """Say something to the parent; it lands in the session's inbox.

        Raises:
            InvalidInput: it has no JSON form, or is larger than an event may be.
        """
        said = as_json({"text": text, "data": data}, "the message", limit=EVENT_BYTES)
        self._voice.tell(f"message {next(_ordinals)}", "session.message", MessageData(**said))

    @overload
    def ask(
        self, question: str, *, schema: type[T], timeout: float | None = None, default: T = ...
    ) -> Awaitable[T]: ...
    @overload
    def ask(
        self, question: str, *, schema: Any = None, timeout: float | None = None, default: Any = ...
    ) -> Awaitable[Any]: ...
    @strict
    def ask(
        self, question: Text, *, schema: Any = None, timeout: Patience = None, default: Any = NO_DEFAULT
    ) -> Awaitable[Any]:
        """Ask the parent, and wait without a slot until somebody answers; the first answer counts.

        A later attempt that asks the same gets the same answer at once. Branches that ask at the same time
        take turns. While it waits, neither `timeout` nor `idle_timeout` of the task counts; `total_timeout`
        does.

        Args:
            question: what is shown to whoever answers.
            schema: a type that the answer is returned as (pydantic checks it), or JSON Schema, of which
                `hermes_async.domain.json_schema` says what is checked; any JSON value by default. An answer
                that does not fit is refused or, if only pydantic can tell, asked for again.
            timeout: seconds; for ever by default.
            default: the answer when nobody has given one in time.

        Raises:
            QuestionTimeout: nobody has, and there is no default.
            InvalidInput: the default does not fit the schema, or the question is larger than an event may be.
            UserError: the schema is none, or this is a `def`, where it is `ctx.wait(ctx.ask, ...)`.
        """
        self._check_loop("ask")
        shape = Shape(schema)
        as_json([question, shape.schema], "the question", limit=EVENT_BYTES)
        if default is NO_DEFAULT:
            return self._company.conversation.ask(
                question, shape, timeout, Answer(question_id="", by="timeout")
            )
        plain = as_json(shape.written(default), "the default", limit=EVENT_BYTES)
        shape.fit(plain)
        ending = Answer(question_id="", answer=plain, by="default")
        return self._company.conversation.ask(question, shape, timeout, ending)

    @strict
    def messages(self, wait: Seconds = 0.0) -> Awaitable[Sequence[MessageData]]:
        """Return what was said to the task and this attempt has not read yet, oldest first.

        Args:
            wait: seconds to wait for the first one, without a slot, if there is none.

        Raises:
            UserError: this is a `def`, where it is `ctx.wait(ctx.messages)`.
        """
        self._check_loop("messages")
        return self._company.conversation.messages(wait)

    @property
    def usage(self) -> Usage:
        """What the task has consumed so far, over all its attempts."""
        return self._company.spending.usage

    def spend(
        self,
        *,
        requests: int = 0,
        tool_calls: int = 0,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cost_usd: float = 0.0,
        model: str = "",
    ) -> Coroutine[Any, Any, Usage]:
        """Count what was consumed, also against the limits of this task and of every task above it.

        Requests and tool calls alone are asked for in advance: what is refused is not counted. Tokens and
        money have been spent, so they count in any case. What one attempt has spent is gone for the next.

        Args:
            requests: to a model.
            tool_calls: of a model.
            input_tokens: that a model has read.
            output_tokens: that a model has written.
            cost_usd: US dollars.
            model: the name of the model, for the metrics: few and short, never an id.

        Returns:
            What the task has consumed so far.

        Raises:
            BudgetExceeded: a limit is reached. Who does not catch it has failed for good (`budget_exceeded`):
                neither a retry nor a fallback follows. Who does may still return what there is.
            InvalidInput: an amount is negative, or beyond all reason; or the model has no proper name.
            UserError: this is a `def`, where it is `ctx.wait(ctx.spend, ...)`.
        """
        self._check_loop("spend")
        amount = checked_usage(requests, tool_calls, input_tokens, output_tokens, cost_usd)
        return self._company.spending.spend(amount, checked_model(model))

    def wait(self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what is awaited in an `async def`, and wait for it, in a `def`: `ctx.wait(ctx.ask, "Which?")`.

        Raises:
            UserError: this is an `async def`, which would never hear of its end.
        """
        if _is_on_loop():
            raise UserError("in an `async def`, write `await` instead of `ctx.wait`")

        async def body() -> R:
            return await function(*args, **kwargs)

        future = asyncio.run_coroutine_threadsafe(body(), self._loop)
        try:
            return future.result()
        except BaseException:  # a time limit may have struck
            future.cancel()
            raise

    @overload
    def dispatch(
        self, subagent: Subagent[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, TaskHandle[R]]: ...
    @overload
    def dispatch(
        self, subagent: str, /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, TaskHandle[Any]]: ...
    def dispatch(self, subagent: Any, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, TaskHandle[Any]]:
        """Start a child task in the same session and return its handle at once.

        A task that waits for its child takes no slot meanwhile, and a cancel of it reaches the child. It ends
        after its children: at the end it waits for those that nobody has awaited; if it fails, they are asked
        to stop.

        Raises:
            TaskRejected: a limit says no, or this task is to be cancelled.
            UserError: this is a `def`, where it is `ctx.wait(ctx.dispatch, ...)`.
        """
        self._check_loop("dispatch")
        return self._company.delegate.dispatch(subagent, *args, **kwargs)

    @overload
    def dispatch_many(
        self, subagent: Subagent[..., R], inputs: Sequence[Mapping[str, Any]]
    ) -> Coroutine[Any, Any, list[TaskHandle[R]]]: ...
    @overload
    def dispatch_many(
        self, subagent: str, inputs: Sequence[Mapping[str, Any]]
    ) -> Coroutine[Any, Any, list[TaskHandle[Any]]]: ...
    def dispatch_many(
        self, subagent: Any, inputs: Sequence[Mapping[str, Any]]
    ) -> Coroutine[Any, Any, list[TaskHandle[Any]]]:
        """Start a child task for each input (its arguments by name) in a few round trips.

        Raises:
            TaskRejected: a limit says no to one of them, or this task is to be cancelled; then none goes on.
            UserError: this is a `def`, where it is `ctx.wait(ctx.dispatch_many, ...)`.
        """
        self._check_loop("dispatch_many")
        return self._company.delegate.dispatch_many(subagent, inputs)

    @staticmethod
    def _check_loop(name: str) -> None:
        if not _is_on_loop():
            raise UserError(f"in a `def`, write `ctx.wait(ctx.{name}, ...)` instead of `ctx.{name}(...)`")


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _line(text: str) -> str:
    """Return text that fits on a status line and has a UTF-8 form."""
    return str(text)[:STATUS_LENGTH].encode("utf-8", "replace").decode()
